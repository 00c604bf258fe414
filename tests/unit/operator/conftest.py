from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from metisfl.spec import Federation, parse_federation
from metisfl_operator.resources.metadata import Owner
from metisfl_operator.settings import NetworkSettings, Settings

DOCUMENT: dict[str, Any] = {
    "apiVersion": "metisfl.dev/v1alpha1",
    "kind": "Federation",
    "metadata": {"name": "demo", "namespace": "lab", "uid": "u-1", "generation": 3},
    "spec": {
        "learner": {"entrypoint": "pkg.mod:Class", "parameters": {"alpha": "0.5"}},
        "learnerGroups": [{"name": "a", "replicas": 2}, {"name": "b"}],
    },
}


@pytest.fixture
def federation() -> Callable[..., Federation]:
    """A small federation, with parts of its spec replaced."""

    def build(**spec: Any) -> Federation:
        document = copy.deepcopy(DOCUMENT)
        document["spec"].update(spec)
        return parse_federation(document)

    return build


@pytest.fixture
def owner() -> Owner:
    return Owner("demo", "lab", "u-1")


@pytest.fixture
def settings() -> Settings:
    return Settings("example.test/controller:1", "example.test/learner:1", "Never", "json", network=NetworkSettings())
