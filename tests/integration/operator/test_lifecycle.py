"""What becomes of a federation and its volume as its spec changes: edits, suspension, removal, return."""

from __future__ import annotations

import json
from typing import Any

import pytest

from metisfl.api import FederationState
from metisfl.api.configuration import configuration_digest
from metisfl_operator.reconcile.reconciler import InvalidFederationError
from tests.integration.operator.world import PODS, World


def configuration(world: World) -> str:
    """The digest of what the operator wrote for the controller."""
    data = world.space.get("configmaps", "demo-controller")["data"]
    return configuration_digest(data["federation.json"], data["partition-plan.json"])


# ---- edits


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"learner": {"entrypoint": "other:Class"}}, "spec.learner: entrypoint is fixed"),
        ({"aggregation": {"deterministic": True}}, "spec: aggregation is fixed"),
        ({"transport": {"codec": "Float16"}}, "spec: transport is fixed"),
        ({"protocol": {"type": "Asynchronous"}}, "spec.protocol: type is fixed"),
        (
            {"controller": {"storage": {"storageClassName": "slow"}}},
            "spec.controller.storage: storageClassName is fixed",
        ),
    ],
    ids=str,
)
def test_what_is_fixed_is_refused_by_the_operator_where_servers_know_no_cel(
    world: World, edit: dict[str, Any], told: str
) -> None:
    world.federate()
    world.reconcile()
    before = world.written_by_the_operator()
    world.edit(**edit)
    with pytest.raises(InvalidFederationError, match=told):
        world.reconcile()
    status, reason, message = world.condition("Progressing")
    assert (status, reason) == ("False", "InvalidSpec")
    assert told in message
    after = world.written_by_the_operator()
    del before["federations", "demo"], after["federations", "demo"]
    assert after == before
    # Taking it back is all it needs.
    world.edit(**{key: None for key in edit if key != "learner"}, learner={"entrypoint": "pkg.mod:Class"})
    world.later()
    world.reconcile()
    assert world.condition("Progressing")[:2] == ("True", "WaitingForController")


def test_learners_are_added_once_the_controller_knows_of_them(world: World) -> None:
    world.start(learner={"entrypoint": "pkg.mod:Class", "partitions": 9})
    world.controller.says(FederationState.TRAINING, configuration=configuration(world))
    world.edit(learnerGroups=[{"name": "b", "replicas": 3}, {"name": "c"}])
    world.later()
    world.reconcile()
    assert world.replicas() == {"demo-b": 1, "demo-c": 0, "demo-controller": 1}
    assert world.status()["learners"]["desired"] == 4
    world.controller.says(FederationState.TRAINING, configuration=configuration(world))
    world.later()
    world.reconcile()
    assert world.replicas() == {"demo-b": 3, "demo-c": 1, "demo-controller": 1}
    # Those that go need nobody's leave.
    world.edit(learnerGroups=[{"name": "b", "replicas": 1}, {"name": "c"}])
    world.later()
    world.reconcile()
    assert world.replicas() == {"demo-b": 1, "demo-c": 1, "demo-controller": 1}


def test_pod_options_reach_the_pods(world: World) -> None:
    group = {
        "name": "a",
        "replicas": 1,
        "resources": {"limits": {"nvidia.com/gpu": 1}, "requests": {"cpu": "10m"}},
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "USER", "value": "me"}],
        "envFrom": [{"secretRef": {"name": "database"}}],
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "imagePullSecrets": [{"name": "registry"}],
        "initContainers": [{"name": "fetch", "image": "example.test/fetch:1"}],
        "podLabels": {"team": "x"},
        "podAnnotations": {"note": "y"},
        "serviceAccountName": "default",
    }
    world.federate(learnerGroups=[group])
    world.reconcile()
    world.space.pods("demo-a-0", "demo-controller-0")
    pod = world.space.get("pods", "demo-a-0")
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert (environment["HTTPS_PROXY"], environment["USER"]) == ("http://proxy:3128", "me")
    assert environment["METISFL_ENTRYPOINT"] == "pkg.mod:Class"
    assert container["envFrom"] == [{"secretRef": {"name": "database"}}]
    assert group["tolerations"][0].items() <= spec["tolerations"][0].items()
    (spread,) = spec["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["initContainers"][0]["securityContext"]["runAsNonRoot"] is True
    assert pod["metadata"]["labels"]["team"] == "x"
    assert pod["metadata"]["annotations"]["note"] == "y"
    # Nothing of it is written again and again.
    before = world.written_by_the_operator()
    world.later()
    world.reconcile()
    assert world.written_by_the_operator() == before


# ---- others


def test_a_federation_that_another_controller_manages_is_left_alone(world: World) -> None:
    world.federate(managedBy="kueue.x-k8s.io/multikueue")
    world.reconcile()
    assert world.status() == {}
    assert world.space.names("statefulsets") == []


def test_a_federation_that_is_created_suspended_starts_when_it_is_resumed(world: World) -> None:
    world.federate(suspend=True)
    world.reconcile()
    assert set(world.replicas().values()) == {0}
    assert world.condition("Suspended")[:2] == ("True", "Suspended")
    assert world.status()["learners"]["desired"] == 0
    world.edit(suspend=False)
    world.later()
    world.reconcile()
    world.space.pods(*PODS)


def test_a_running_controller_can_be_protected_from_eviction(world: World) -> None:
    world.start(controller={"protectFromEviction": True})
    budget = world.space.get("poddisruptionbudgets", "demo-controller")["spec"]
    assert budget["minAvailable"] == 1
    labels = world.space.get("pods", "demo-controller-0")["metadata"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    world.controller.says(FederationState.COMPLETE, reason="MaxRoundsReached", message="done")
    world.later()
    world.reconcile()
    assert world.space.names("poddisruptionbudgets") == []


def test_network_policies_pick_the_pods_they_are_for(world: World) -> None:
    world.start()
    for name, pods in (("demo-controller", ["demo-controller-0"]), ("demo--learners", PODS[:3])):
        selector = world.space.get("networkpolicies", name)["spec"]["podSelector"]["matchLabels"]
        picked = [pod for pod in PODS if selector.items() <= world.space.get("pods", pod)["metadata"]["labels"].items()]
        assert picked == list(pods)


# ---- volumes that are kept


def owners(world: World, claim: str = "demo-controller") -> list[str]:
    found = world.space.get("persistentvolumeclaims", claim)["metadata"].get("ownerReferences", [])
    return [reference["uid"] for reference in found]


def gone(world: World) -> bool:
    """Whether nothing of a deleted federation is left but its volume."""
    return not any(
        name.startswith("demo")
        for kind in ("statefulsets", "services", "configmaps", "secrets")
        for name in world.space.names(kind)
    )


def test_a_retained_volume_has_no_owner_and_can_get_one_again(world: World) -> None:
    world.federate(controller={"storage": {"retain": True}})
    world.reconcile()
    assert owners(world) == []
    world.edit(controller={"storage": {"retain": False}})
    world.later()
    world.reconcile()
    assert owners(world) == [world.controller.uid]
    world.edit(controller={"storage": {"retain": True}})
    world.later()
    world.reconcile()
    assert owners(world) == []


def test_a_federation_goes_on_from_a_kept_volume_with_its_shares(world: World) -> None:
    world.federate(
        learner={"entrypoint": "m:C", "partitions": 6},
        learnerGroups=[{"name": "a", "replicas": 2}, {"name": "b"}],
        controller={"storage": {"retain": True}},
    )
    world.reconcile()
    world.space.delete("federations", "demo")
    world.space.eventually("its children are gone", lambda: gone(world))
    assert "demo-controller" in world.space.names("persistentvolumeclaims")

    # Under the same name it would be found by chance: that has to be said.
    world.federate(learner={"entrypoint": "m:C", "partitions": 6}, learnerGroups=[{"name": "b"}, {"name": "c"}])
    world.reconcile()
    status, reason, message = world.condition("Progressing")
    assert (status, reason) == ("False", "NameConflict")
    assert "controller.storage.existingClaim" in message
    world.space.delete("federations", "demo")
    world.space.eventually("its children are gone", lambda: gone(world))

    world.federate(
        learner={"entrypoint": "m:C", "partitions": 6},
        learnerGroups=[{"name": "b"}, {"name": "c"}],
        controller={"storage": {"existingClaim": "demo-controller"}},
    )
    world.reconcile()
    plan = json.loads(world.space.get("configmaps", "demo-controller")["data"]["partition-plan.json"])
    assert plan == {"count": 6, "offsets": {"a": 0, "b": 2, "c": 3}}
    pod = world.space.get("statefulsets", "demo-controller")["spec"]["template"]["spec"]
    assert {"name": "METISFL_ADOPT_STATE", "value": "true"} in pod["containers"][0]["env"]
    assert owners(world) == []
    before = world.written_by_the_operator()
    world.later()
    world.reconcile()
    after = world.written_by_the_operator()
    # The status tells of pods, which come and go.
    del before["federations", "demo"], after["federations", "demo"]
    assert after == before


def test_a_volume_that_is_in_use_is_not_taken(world: World) -> None:
    world.federate(controller={"storage": {"retain": True}})
    world.reconcile()
    other = {
        **world.space.get("federations", "demo"),
        "metadata": {"name": "other"},
    }
    other["spec"]["controller"] = {"storage": {"existingClaim": "demo-controller"}}
    world.space.create("federations", other)
    world.reconciler.reconcile(world.space.name, "other")
    (progressing,) = [
        c for c in world.space.get("federations", "other")["status"]["conditions"] if c["type"] == "Progressing"
    ]
    assert progressing["reason"] == "NameConflict"
    assert "in use by Federation demo" in progressing["message"]
    assert "other-controller" not in world.space.names("statefulsets")


def test_a_volume_that_is_not_there_is_told(world: World) -> None:
    world.federate(controller={"storage": {"existingClaim": "kept"}})
    world.reconcile()
    assert world.condition("Progressing")[:2] == ("False", "VolumeUnavailable")
    assert world.space.names("statefulsets") == []
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    world.space.create("persistentvolumeclaims", {"metadata": {"name": "kept"}, "spec": claim})
    world.later()
    world.reconcile()
    assert "metisfl.dev/partition-plan" in world.space.get("persistentvolumeclaims", "kept")["metadata"]["annotations"]
    mounted = world.space.get("statefulsets", "demo-controller")["spec"]["template"]["spec"]["volumes"]
    assert {"claimName": "kept"} in [volume.get("persistentVolumeClaim") for volume in mounted]


@pytest.mark.parametrize("storage", [{}, {"existingClaim": "kept"}], ids=["own", "existing"])
def test_a_plan_that_was_taken_away_is_told_and_not_made_anew(world: World, storage: dict[str, str]) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    world.space.create("persistentvolumeclaims", {"metadata": {"name": "kept"}, "spec": claim})
    world.federate(controller={"storage": storage})
    world.reconcile()
    name = storage.get("existingClaim", "demo-controller")
    world.space.patch(
        "persistentvolumeclaims", name, {"metadata": {"annotations": {"metisfl.dev/partition-plan": None}}}
    )
    world.later()
    world.reconcile()
    assert world.condition("Progressing")[:2] == ("False", "PlanUnreadable")


# ---- events


def test_what_happens_again_is_counted_and_not_told_anew(world: World) -> None:
    world.federate()
    for suspend in (True, False, True, False, True):
        world.edit(suspend=suspend)
        world.later()
        world.reconcile()
    items = world.space.server.request("GET", world.space.path("events"))["items"]
    suspended = [item for item in items if item["reason"] == "Suspended"]
    assert [item["count"] for item in suspended] == [3]
    assert suspended[0]["firstTimestamp"] < suspended[0]["lastTimestamp"]
