"""What a run leaves behind to be read again: summary.json, and the report drawn from it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

import metisfl
from metisfl.api import FederationDocument, ModelDocument, RoundDocument

_REPORTED_PACKAGES = ("numpy", "numba", "grpcio", "torch", "scikit-learn")


class RunRecord(BaseModel):
    """One run, as its controller described it at the end; keys are camelCase in JSON."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    final: bool
    """Whether the federation itself came to its end; otherwise the run can be resumed."""

    ending: str
    """Why the run ended, in words."""

    federation_yaml: str
    document: FederationDocument
    rounds: Sequence[RoundDocument]
    models: Sequence[ModelDocument]
    restarts: dict[str, int]
    seconds: float
    created_at: datetime
    versions: dict[str, str]


def installed_versions() -> dict[str, str]:
    """Of what decides a run's numbers and speed."""
    found = {"metisfl": metisfl.__version__, "Python": platform.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
