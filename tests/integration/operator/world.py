"""A namespace with one Federation in it, whose kubelet and federation controller are the test."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from metisfl.api import FederationDocument, FederationState, LearnerDocument
from metisfl_operator.progress import ProgressError
from metisfl_operator.reconcile.reconciler import Reconciler

FEDERATION: dict[str, Any] = {
    "apiVersion": "metisfl.dev/v1alpha1",
    "kind": "Federation",
    "metadata": {"name": "demo"},
    "spec": {
        "learner": {"entrypoint": "pkg.mod:Class"},
        "learnerGroups": [{"name": "a", "replicas": 2}, {"name": "b"}],
        "termination": {"maxRounds": 5, "targetMetric": {"name": "accuracy", "atLeast": "0.9"}},
    },
}
PODS = ("demo-a-0", "demo-a-1", "demo-b-0", "demo-controller-0")
LEARNERS = ("a-0", "a-1", "b-0")


@dataclass
class Controller:
    """Stands for the controller: says what the test wants said."""

    uid: str = ""
    document: FederationDocument | None = None

    announced: dict[str, str] = field(default_factory=dict)

    def read(self, host: str, token: str | None) -> FederationDocument:
        assert host.startswith("10.97."), "asked at the Service's address"
        assert token, "shown the federation's token"
        if self.document is None:
            raise ProgressError("connection refused")
        return self.document

    def announce(self, host: str, token: str | None, instances: Mapping[str, str]) -> None:
        assert host.startswith("10.97.")
        assert token
        self.announced = dict(instances)

    def says(self, state: FederationState, connected: tuple[str, ...] = LEARNERS, **fields: Any) -> None:
        learners = [
            LearnerDocument(id=name, group=name[0], connected=name in connected, activity="Idle") for name in LEARNERS
        ]
        self.document = FederationDocument(
            **{
                "name": "demo",
                "uid": self.uid,
                "incarnation": 1,
                "state": state,
                "max_rounds": 5,
                "learners": learners,
                "desired_learners": 3,
                **fields,
            }
        )


@dataclass
class World:
    """A namespace with one Federation, its reconciler and a clock that stands still until told to move."""

    space: Any
    reconciler: Reconciler
    controller: Controller
    clock: list[datetime] = field(default_factory=lambda: [datetime(2024, 5, 1, 10, 0, 0, tzinfo=UTC)])

    def federate(self, **spec: Any) -> None:
        manifest = copy.deepcopy(FEDERATION)
        manifest["spec"].update(spec)
        self.controller.uid = self.space.create("federations", manifest)["metadata"]["uid"]

    def edit(self, **spec: Any) -> None:
        self.space.patch("federations", "demo", {"spec": spec})

    def reconcile(self) -> None:
        self.reconciler.reconcile(self.space.name, "demo")

    def later(self, seconds: float = 10) -> None:
        self.clock[0] += timedelta(seconds=seconds)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.space.get("federations", "demo").get("status", {})
        return found

    def condition(self, kind: str) -> tuple[str, str, str]:
        (found,) = [c for c in self.status()["conditions"] if c["type"] == kind]
        return found["status"], found["reason"], found["message"]

    def replicas(self) -> dict[str, int]:
        return {
            name: self.space.get("statefulsets", name)["spec"]["replicas"] for name in self.space.names("statefulsets")
        }

    def written_by_the_operator(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What stands in the operator's objects. The StatefulSet controller writes statuses, whenever it likes."""
        objects = {("federations", "demo"): self.space.get("federations", "demo")}
        for kind in ("secrets", "statefulsets", "services", "configmaps", "persistentvolumeclaims"):
            for name in self.space.names(kind):
                if not name.startswith("demo"):
                    continue
                found = objects[kind, name] = self.space.get(kind, name)
                found.pop("status", None)
                for changes_with_the_status in ("resourceVersion", "managedFields"):
                    del found["metadata"][changes_with_the_status]
        return objects

    def start(self, **spec: Any) -> None:
        """A federation whose pods run and whose controller serves."""
        self.federate(**spec)
        self.reconcile()
        self.space.pods(*PODS)
        for pod in PODS:
            self.space.pod_runs(pod)
        self.controller.says(FederationState.TRAINING, current_round=1)
        self.later()
        self.reconcile()
