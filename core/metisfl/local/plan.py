"""Which processes a federation needs on this machine, and with which settings: pure."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metisfl.local.folder import RunFolder
from metisfl.local.processes import Launch
from metisfl.spec import Federation

CONTROLLER = "controller"
LOOPBACK = "127.0.0.1"
ANY_PORT = f"{LOOPBACK}:0"

# What decides how many threads NumPy, scikit-learn and PyTorch use.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Of the user's own METISFL_* variables, only these mean anything to a local run.
_KEPT = ("METISFL_LOG_LEVEL",)


@dataclass(frozen=True)
class Endpoints:
    """Where the controller listens, as host:port."""

    grpc: str
    http: str


@dataclass(frozen=True)
class Surroundings:
    """What of this machine and its user goes into the plan."""

    environment: Mapping[str, str]
    processors: int
    import_paths: Sequence[Path]
    """Folders that learners import the user's code from, first come first served."""


def controller_launch(
    federation: Federation, folder: RunFolder, surroundings: Surroundings, uid: str, endpoints: Endpoints | None
) -> Launch:
    """The controller, on free ports, or on the ports it had before."""
    settings = {
        "METISFL_FEDERATION_FILE": str(folder.federation),
        "METISFL_FEDERATION_UID": uid,
        "METISFL_STATE_DIR": str(folder.root),
        # Of an archive, another federation's; that the folder is this run's own has been seen to.
        "METISFL_ADOPT_STATE": "true",
        "METISFL_GRPC_ADDRESS": endpoints.grpc if endpoints else ANY_PORT,
        "METISFL_HTTP_ADDRESS": endpoints.http if endpoints else ANY_PORT,
        "METISFL_ENDPOINT_FILE": str(folder.endpoints),
        "METISFL_API_TOKEN_FILE": str(folder.token),
        "METISFL_LOG_FORMAT": "text",
    }
    if folder.plan.exists():
        settings["METISFL_PARTITION_PLAN"] = str(folder.plan)
    if federation.spec.security.tls.enabled:
        settings["METISFL_TLS_DIR"] = str(folder.certificates.controller)
    if federation.spec.controller.threads is not None:
        settings["METISFL_THREADS"] = str(federation.spec.controller.threads)
    return Launch(CONTROLLER, _module("metisfl_controller"), _base(surroundings) | settings)


def learner_launches(
    federation: Federation, folder: RunFolder, surroundings: Surroundings, endpoints: Endpoints
) -> list[Launch]:
    """One learner for each that would have a pod, named like that without the federation's name."""
    count = sum(group.pods for group in federation.spec.learner_groups)
    threads = str(max(1, surroundings.processors // max(1, count)))
    base = _base(surroundings)
    limits = {name: base.get(name, threads) for name in _THREAD_VARIABLES}
    paths = [str(path) for path in surroundings.import_paths]
    inherited = [base["PYTHONPATH"]] if base.get("PYTHONPATH") else []
    common = {
        "METISFL_CONTROLLER": endpoints.grpc,
        "METISFL_ENTRYPOINT": federation.spec.learner.entrypoint,
        "METISFL_LOG_FORMAT": "text",
        "PYTHONPATH": os.pathsep.join([*paths, *inherited]),
    }
    launches = []
    for group in federation.spec.learner_groups:
        for ordinal in range(group.pods):
            name = f"{group.name}-{ordinal}"
            own = {
                "METISFL_LEARNER_GROUP": group.name,
                "METISFL_LEARNER_ORDINAL": str(ordinal),
                "METISFL_STATE_DIR": str(folder.learner_state(name)),
            }
            if federation.spec.security.tls.enabled:
                own["METISFL_TLS_DIR"] = str(folder.certificates.learners(group.name))
            launches.append(Launch(name, _module("metisfl_learner"), base | limits | common | own))
    return launches


def _module(name: str) -> tuple[str, ...]:
    # -P: the folder the user happens to be in must not shadow modules.
    return (sys.executable, "-P", "-m", name)


def _base(surroundings: Surroundings) -> dict[str, str]:
    kept = {
        name: value
        for name, value in surroundings.environment.items()
        if not name.startswith("METISFL_") or name in _KEPT
    }
    # gRPC sends even loopback traffic to a proxy that the environment names.
    exempt = ",".join(filter(None, [kept.get("no_proxy") or kept.get("NO_PROXY"), LOOPBACK, "localhost"]))
    return kept | {"PYTHONUNBUFFERED": "1", "no_proxy": exempt, "NO_PROXY": exempt}
