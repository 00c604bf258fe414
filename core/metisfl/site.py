"""From a bundle to the environment of a learner process at a site."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metisfl.bundle import Bundle
from metisfl.files import write_private
from metisfl.tls.pem import CA_FILE, CERTIFICATE_FILE, KEY_FILE, SERVER_NAME_FILE

# Of the METISFL_* variables around it, only these mean anything to a learner at a site.
_KEPT = ("METISFL_LOG_LEVEL", "METISFL_LOG_FORMAT", "METISFL_PARK_AFTER_STOP", "METISFL_TERMINATION_LOG")
# It names a pod of the site's own cluster.
_POD_NAME = "METISFL_POD_NAME"


class SiteError(Exception):
    """This learner cannot be started; the message says what to do."""


@dataclass(frozen=True)
class Site:
    """What the site decides. `import_path` is where its code lies."""

    entrypoint: str
    parameters: Mapping[str, str]
    state_dir: Path
    ordinal: int | None
    patience: float
    import_path: Path


def environment(bundle: Bundle, site: Site, around: Mapping[str, str]) -> dict[str, str]:
    """The learner's variables; certificates are laid out in the state folder, which this process holds from now on.

    Raises SiteError when the folder cannot be used, or another learner uses it.
    """
    try:
        site.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _hold(site.state_dir)
        variables = {
            "METISFL_CONTROLLER": bundle.spec.endpoint,
            "METISFL_ENTRYPOINT": site.entrypoint,
            "METISFL_LEARNER_GROUP": bundle.spec.group,
            "METISFL_PARAMETERS": json.dumps(dict(site.parameters)),
            "METISFL_STATE_DIR": str(site.state_dir),
            "METISFL_CONNECT_DEADLINE_SECONDS": f"{site.patience:g}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(site.import_path), around.get("PYTHONPATH")])),
            "PYTHONUNBUFFERED": "1",
            **_tls(bundle, site.state_dir / "bundle"),
        }
    except OSError as error:
        raise SiteError(f"{site.state_dir} cannot be used: {error.strerror or error}; see --state-dir") from error
    ordinal = site.ordinal
    if ordinal is None and bundle.spec.tls is None:
        ordinal = _of_pod(around.get(_POD_NAME, ""))
    if ordinal is not None:
        variables["METISFL_LEARNER_ORDINAL"] = str(ordinal)
    kept = {name: value for name, value in around.items() if not name.startswith("METISFL_") or name in _KEPT}
    return kept | variables


def _hold(folder: Path) -> None:
    """The lock is on a file that stays open in the program that takes this process's place."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SiteError(f"another learner uses {folder}: give each its own --state-dir") from None
    os.set_inheritable(descriptor, True)


def _tls(bundle: Bundle, folder: Path) -> dict[str, str]:
    tls = bundle.spec.tls
    if tls is None:
        return {}
    folder.mkdir(mode=0o700, exist_ok=True)
    files = {
        CA_FILE: tls.ca,
        CERTIFICATE_FILE: tls.certificate,
        KEY_FILE: tls.key,
        SERVER_NAME_FILE: f"{tls.server_name}\n",
    }
    for name, text in files.items():
        write_private(folder / name, text.encode())
    return {"METISFL_TLS_DIR": str(folder)}


def _of_pod(name: str) -> int:
    """The number at the end of a StatefulSet pod's name; 0 outside of one."""
    found = re.search(r"-([0-9]+)$", name)
    return int(found[1]) if found else 0
