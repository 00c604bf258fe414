"""The certificates of a federation on one machine, as files in its run folder.

tls/root/          tls.crt, tls.key: read here, and by no other process
tls/controller/    ca.crt, tls.crt, tls.key, issuer.crt, issuer.key
tls/group:<name>/  ca.crt, tls.crt, tls.key: what the group's learners enrol with
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from metisfl.files import write_private
from metisfl.tls.holdings import Complete, Holdings, Lifetimes, maintained
from metisfl.tls.pem import (
    CA_FILE,
    CERTIFICATE_FILE,
    ISSUER_CERTIFICATE_FILE,
    ISSUER_KEY_FILE,
    KEY_FILE,
    KeyPair,
)

# A run has nobody who would renew these while it lasts; its learners renew their own.
LIFETIMES = Lifetimes(server=timedelta(days=365), bootstrap=timedelta(days=365))


@dataclass(frozen=True)
class CertificateFolder:
    """Made where it is missing, by `prepare`; a run that is resumed goes on with what it has."""

    root: Path

    @property
    def controller(self) -> Path:
        """METISFL_TLS_DIR of the controller."""
        return self.root / "controller"

    def learners(self, group: str) -> Path:
        """METISFL_TLS_DIR of a group's learners."""
        # The colon keeps a group from taking the name of another folder.
        return self.root / f"group:{group}"

    def prepare(self, federation: str, groups: Iterable[str], now: datetime, lifetimes: Lifetimes = LIFETIMES) -> None:
        """`federation`: its UID. Raises PemError when the root was damaged, OSError when files cannot be written."""
        groups = list(groups)
        complete = maintained(self._held(groups), federation, groups, lifetimes, now)
        for folder, files in self._layout(complete).items():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, content in files.items():
                write_private(folder / name, content)

    def _layout(self, complete: Complete) -> dict[Path, Mapping[str, bytes]]:
        ca = {CA_FILE: complete.root.certificate}
        issuer = {ISSUER_CERTIFICATE_FILE: complete.issuer.certificate, ISSUER_KEY_FILE: complete.issuer.key}
        return {
            self.root / "root": _files(complete.root),
            self.controller: {**ca, **_files(complete.server), **issuer},
            **{self.learners(group): {**ca, **_files(held)} for group, held in complete.bootstraps.items()},
        }

    def _held(self, groups: Iterable[str]) -> Holdings:
        bootstraps = {group: _read(self.learners(group)) for group in groups}
        return Holdings(
            _read(self.root / "root"),
            _read(self.controller, ISSUER_CERTIFICATE_FILE, ISSUER_KEY_FILE),
            _read(self.controller),
            {group: held for group, held in bootstraps.items() if held is not None},
        )


def _files(pair: KeyPair) -> dict[str, bytes]:
    return {CERTIFICATE_FILE: pair.certificate, KEY_FILE: pair.key}


def _read(folder: Path, certificate: str = CERTIFICATE_FILE, key: str = KEY_FILE) -> KeyPair | None:
    try:
        return KeyPair((folder / certificate).read_bytes(), (folder / key).read_bytes())
    except FileNotFoundError:
        return None
