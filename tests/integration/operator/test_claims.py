"""Claims against a real API server and StatefulSet controller: who makes them, and what may become of their size."""

from __future__ import annotations

from typing import Any

import pytest

from metisfl_operator.kube import KubeClient
from metisfl_operator.resources.volume import canonical
from tests.integration.operator.conftest import RefusedError
from tests.integration.operator.world import PODS, World

GROUPS: list[dict[str, Any]] = [{"name": "b"}, {"name": "a", "replicas": 2, "storage": {"size": "1024Mi"}}]
CLAIM = "metisfl-state-demo-a-0"


def request(size: str, **spec: Any) -> dict[str, Any]:
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}


def owners(world: World, claim: str) -> list[str]:
    found = world.space.find("persistentvolumeclaims", claim)
    return [r["uid"] for r in found["metadata"].get("ownerReferences", [])] if found else []


def again(world: World) -> None:
    world.later()
    world.reconcile()


# ---- claims that cannot be had


@pytest.mark.parametrize(("claim", "held"), [(CLAIM, "demo-a"), ("demo-controller", "demo-controller")])
def test_nobody_elses_volume_is_mounted(world: World, claim: str, held: str) -> None:
    world.space.create("persistentvolumeclaims", {"metadata": {"name": claim}, "spec": request("1Gi")})
    world.federate(learnerGroups=GROUPS)
    world.reconcile()
    assert world.condition("Progressing")[1] == "NameConflict"
    others = {"demo-a": 2, "demo-b": 1, "demo-controller": 1}
    del others[held]
    assert world.replicas() == others
    world.space.delete("persistentvolumeclaims", claim)
    world.space.eventually("the claim is gone", lambda: world.space.find("persistentvolumeclaims", claim) is None)
    again(world)
    assert world.replicas() == {"demo-a": 2, "demo-b": 1, "demo-controller": 1}
    assert owners(world, claim) == [world.controller.uid]


def test_a_federation_that_is_made_again_waits_for_the_claims_of_the_old_one(world: World) -> None:
    world.federate(learnerGroups=GROUPS)
    world.reconcile()
    world.space.pods(*PODS)
    world.space.patch("persistentvolumeclaims", CLAIM, {"metadata": {"finalizers": ["example.test/hold"]}})
    world.space.delete("federations", "demo")
    world.space.eventually("its workloads are gone", lambda: world.space.names("statefulsets") == [])
    for pod in PODS:
        # There is no kubelet to end them.
        world.space.delete("pods", pod, gracePeriodSeconds=0)
    world.federate(learnerGroups=GROUPS)
    world.reconcile()
    assert world.condition("Progressing")[1] == "WaitingForCleanup"
    assert "demo-a" not in world.replicas()
    world.space.patch("persistentvolumeclaims", CLAIM, {"metadata": {"finalizers": None}})
    world.space.eventually("the old claim is gone", lambda: world.space.find("persistentvolumeclaims", CLAIM) is None)
    again(world)
    assert owners(world, CLAIM) == [world.controller.uid]
    assert world.replicas()["demo-a"] == 2


def test_a_refused_claim_holds_up_new_learners_and_leaves_those_that_run(world: World) -> None:
    world.start(learner={"entrypoint": "pkg.mod:Class", "partitions": 9}, learnerGroups=GROUPS)
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"persistentvolumeclaims": "0"}}}
    world.space.create("resourcequotas", quota)
    full = {"hard": {"persistentvolumeclaims": "0"}, "used": {"persistentvolumeclaims": "0"}}
    world.space.patch("resourcequotas", "none", {"status": full}, "status")
    world.space.eventually("the quota is in force", lambda: not claimable(world))
    running = {pod: world.space.get("pods", pod)["metadata"]["uid"] for pod in PODS}
    world.edit(learnerGroups=[GROUPS[0], {**GROUPS[1], "replicas": 3}])
    again(world)
    status, reason, message = world.condition("Progressing")
    assert reason == "ApplyRejected", (status, message)
    assert "PersistentVolumeClaim metisfl-state-demo-a-2" in message
    assert world.replicas()["demo-a"] == 2
    assert {pod: world.space.get("pods", pod)["metadata"]["uid"] for pod in world.space.names("pods")} == running
    # Whoever stops them is not held up.
    world.edit(suspend=True)
    again(world)
    assert set(world.replicas().values()) == {0}
    world.edit(suspend=False)
    world.space.delete("resourcequotas", "none")
    world.space.eventually("the quota is lifted", lambda: claimable(world))
    again(world)
    assert world.replicas()["demo-a"] == 3
    assert owners(world, "metisfl-state-demo-a-2") == [world.controller.uid]


def claimable(world: World) -> bool:
    path = world.space.path("persistentvolumeclaims") + "?dryRun=All"
    try:
        world.space.server.request("POST", path, {"metadata": {"name": "probe"}, "spec": request("1Gi")})
    except RefusedError as error:
        if error.code != 403:
            raise
        return False
    return True


# ---- sizes


@pytest.mark.parametrize("claim", [CLAIM, "demo-controller"])
def test_a_volume_that_was_enlarged_stays_so(world: World, claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a class that lets volumes grow, which is the cluster's and not the namespace's."""
    classes = "/apis/storage.k8s.io/v1/storageclasses"
    name = f"grows-{world.space.name}"
    grows = {"metadata": {"name": name}, "provisioner": "example.test/none", "allowVolumeExpansion": True}
    world.space.server.request("POST", classes, grows)
    storage = {"size": "1024Mi", "storageClassName": name}
    world.federate(controller={"storage": storage}, learnerGroups=[{"name": "a", "storage": storage}])
    world.reconcile()
    world.space.patch("persistentvolumeclaims", claim, {"spec": {"volumeName": "disk"}})
    world.space.patch("persistentvolumeclaims", claim, {"status": {"phase": "Bound"}}, "status")
    larger = {"spec": {"resources": {"requests": {"storage": "5Gi"}}}}
    # The server's own admission has to have heard of the class first.
    world.space.eventually("the volume grows", lambda: grown(world, claim, larger))
    again(world)
    assert world.condition("Progressing")[1] == "WaitingForController"
    requests = world.space.get("persistentvolumeclaims", claim)["spec"]["resources"]["requests"]
    assert requests == {"storage": "5Gi"}
    applied: list[str] = []
    apply = KubeClient.apply

    def counted(self: KubeClient, manifest: dict[str, Any]) -> dict[str, Any]:
        applied.append(f"{manifest['kind']} {manifest['metadata']['name']}")
        return apply(self, manifest)

    monkeypatch.setattr(KubeClient, "apply", counted)
    again(world)
    assert applied == [], "1024Mi and 1Gi are the same"
    world.space.server.request("DELETE", f"{classes}/{name}")


def grown(world: World, claim: str, larger: dict[str, Any]) -> bool:
    try:
        world.space.patch("persistentvolumeclaims", claim, larger)
    except RefusedError as error:
        if error.code != 403:
            raise
        return False
    return True


def test_a_group_that_comes_back_finds_its_volumes_as_they_were(world: World) -> None:
    learner = {"entrypoint": "pkg.mod:Class", "partitions": 9}
    world.federate(learner=learner, learnerGroups=[{"name": "a", "storage": {"size": "2Gi"}}, {"name": "b"}])
    world.reconcile()
    world.edit(learnerGroups=[{"name": "b"}])
    again(world)
    world.space.eventually("the group is gone", lambda: "demo-a" not in world.replicas())
    other = {"size": "512Mi", "storageClassName": "slow"}
    world.edit(learnerGroups=[{"name": "a", "storage": other}, {"name": "b"}])
    again(world)
    assert world.condition("Progressing")[1] == "WaitingForController"
    assert world.replicas()["demo-a"] == 1
    spec = world.space.get("persistentvolumeclaims", CLAIM)["spec"]
    assert spec["resources"]["requests"] == {"storage": "2Gi"}
    assert "storageClassName" not in spec


@pytest.mark.parametrize(
    "size", ["1024Mi", "1Gi", "1.5Gi", "1.5G", "1000", "1024", "1024k", "1000000k", "1536", "7", "1024Pi", "0.5Ki"]
)
def test_sizes_are_written_as_the_server_would(world: World, size: str) -> None:
    path = world.space.path("persistentvolumeclaims") + "?dryRun=All"
    made = world.space.server.request("POST", path, {"metadata": {"name": "x"}, "spec": request(canonical(size))})
    assert made["spec"]["resources"]["requests"]["storage"] == canonical(size)
