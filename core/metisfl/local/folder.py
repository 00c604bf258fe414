"""The output folder of a run: what lies where, and whether a run may use it."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from metisfl.archive import ArchiveError, unpack
from metisfl.archive.manifest import MODELS
from metisfl.files import write_private
from metisfl.local.certificates import CertificateFolder
from metisfl.partitions import Shares
from metisfl.spec import Federation, SpecError, load_federation
from metisfl.tls.pem import PemError


class RunFolderError(Exception):
    """The folder cannot be used; the message says what to do."""


@dataclass(frozen=True)
class RunFolder:
    """Also the controller's state directory, so that checkpoints and history.sqlite lie here."""

    root: Path

    @property
    def federation(self) -> Path:
        """The Federation as it is run, overrides applied."""
        return self.root / "federation.yaml"

    @property
    def endpoints(self) -> Path:
        """Where the controller says what it listens on."""
        return self.root / "endpoints.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def source(self) -> Path:
        """Learner code from a ConfigMap in the user's file."""
        return self.root / "source"

    @property
    def model(self) -> Path:
        return self.root / "model.safetensors"

    @property
    def plan(self) -> Path:
        """Who has which share of the data, where an archive said so."""
        return self.root / "partition-plan.json"

    @property
    def history(self) -> Path:
        return self.root / "history.sqlite"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def token(self) -> Path:
        """What the controller's REST side asks for."""
        return self.root / "api-token"

    @property
    def certificates(self) -> CertificateFolder:
        return CertificateFolder(self.root / "tls")

    def bundle(self, group: str) -> Path:
        """With which somebody joins an external group."""
        return self.root / "bundles" / f"{group}.yaml"

    def learner_state(self, name: str) -> Path:
        return self.root / "learners" / name

    def prepare(self, federation: Federation, resume: bool, archive: Path | None = None) -> str:
        """Make the folder ready and return the federation's uid: a new one, or the old one of a run that goes on.

        A new run goes on from `archive`, if there is one; when that fails, nothing of it is left. Raises RunFolderError
        when the archive cannot be used, or when the folder holds something else, a finished run, or a run and `resume`
        is not wanted.
        """
        uid = self._uid_to_resume(federation) if resume else self._new_uid()
        try:
            with ExitStack() as undo:
                if archive is not None:
                    self._restore(archive, federation, undo)
                self._describe(federation, uid)
                self._prepare_access(federation, uid)
                undo.pop_all()
        except OSError as error:
            where = error.filename or self.root
            hint = "" if str(where) == str(archive) else "; name another folder with --output"
            raise RunFolderError(f"{where} cannot be used: {error.strerror}{hint}") from error
        except ArchiveError as error:
            raise RunFolderError(f"{archive} cannot be gone on from: {error}") from error
        except PemError as error:
            raise RunFolderError(f"{self.certificates.root}: {error}; name another folder with --output") from error
        return uid

    def write_source(self, files: Mapping[str, str]) -> None:
        """Lay out a ConfigMap's files as they are mounted in a pod."""
        self.source.mkdir(exist_ok=True)
        for name, text in files.items():
            (self.source / Path(name).name).write_text(text, encoding="utf-8")

    def _describe(self, federation: Federation, uid: str) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        self.endpoints.unlink(missing_ok=True)
        document = federation.model_dump(mode="json", by_alias=True, exclude_unset=True)
        document["metadata"]["uid"] = uid
        self.federation.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def _restore(self, archive: Path, federation: Federation, undo: ExitStack) -> None:
        """Its state, and the shares of the data that its learners have."""
        with archive.open("rb") as file:
            kept = unpack(file, self.root).plan
        undo.callback(self._clear)
        shares = Shares(kept.count, kept.offsets, kept.sizes).extended(federation.spec.training_groups)
        self.plan.write_text(json.dumps({"count": shares.count, "offsets": shares.offsets}), encoding="utf-8")

    def _clear(self) -> None:
        """Remove what `prepare` makes of an archive; what went wrong before is what there is to tell."""
        for file in (self.history, self.plan, self.federation, self.token):
            with suppress(OSError):
                file.unlink()
        for folder in (self.root / MODELS, self.logs, self.certificates.root):
            shutil.rmtree(folder, ignore_errors=True)

    def _prepare_access(self, federation: Federation, uid: str) -> None:
        """Token and certificates, in files that nobody else may read; a run that goes on keeps its own."""
        if not self.token.exists():
            write_private(self.token, secrets.token_urlsafe(32).encode())
        if federation.spec.security.tls.enabled:
            groups = [group.name for group in federation.spec.learner_groups]
            self.certificates.prepare(uid, groups, datetime.now(UTC))

    def _new_uid(self) -> str:
        if self.root.exists() and not self.root.is_dir():
            raise RunFolderError(f"{self.root} is not a folder; name another with --output")
        if self.root.is_dir() and any(self.root.iterdir()):
            if not self.federation.exists():
                raise RunFolderError(f"{self.root} is not empty; name an empty or a new folder with --output")
            if self._is_final():
                raise RunFolderError(f"{self.root} holds a run that has ended; name another folder with --output")
            raise RunFolderError(
                f"{self.root} holds a run that has not ended; go on with it by --resume, or name another folder with "
                "--output"
            )
        return str(uuid4())

    def _uid_to_resume(self, federation: Federation) -> str:
        try:
            earlier = load_federation(self.federation)
        except (OSError, SpecError) as error:
            raise RunFolderError(f"{self.root} holds no run to resume; leave --resume out to start one") from error
        if self._is_final():
            raise RunFolderError(f"{self.root} holds a run that has ended, so there is nothing to resume")
        if earlier.metadata.name != federation.metadata.name or earlier.metadata.uid is None:
            raise RunFolderError(
                f"{self.root} holds a run of federation '{earlier.metadata.name}', not of '{federation.metadata.name}'"
            )
        return earlier.metadata.uid

    def _is_final(self) -> bool:
        try:
            summary: dict[str, Any] = json.loads(self.summary.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.summary} cannot be read; name another folder with --output") from error
        return bool(summary.get("final"))
