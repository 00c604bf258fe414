"""The objects a federation becomes: valid for Kubernetes, restricted, and understood by what runs in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from metisfl.spec import Federation, parse_federation
from metisfl_controller.settings import Settings as ControllerSettings
from metisfl_learner.settings import Settings as LearnerSettings
from metisfl_operator.partitions import PartitionPlan
from metisfl_operator.reconcile.desired import desired
from metisfl_operator.reconcile.lifecycle import Lifecycle
from metisfl_operator.resources.configmap import controller_config
from metisfl_operator.resources.metadata import DIGEST_ANNOTATION, Owner
from metisfl_operator.settings import Settings
from tests.unit.operator.pod_security import violations

Build = Callable[..., Federation]
Objects = dict[tuple[str, str], dict[str, Any]]

FULL: dict[str, Any] = {
    "learner": {"entrypoint": "learner:Mine", "sourceRef": {"name": "code"}},
    "learnerGroups": [
        {
            "name": "a",
            "replicas": 2,
            "image": "example.test/mine:2",
            "resources": {"limits": {"memory": "1Gi"}},
            "volumes": [{"name": "data", "emptyDir": {}}],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "nodeSelector": {"site": "a"},
            "env": [
                {"name": "A", "value": "b"},
                {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ],
            "envFrom": [{"configMapRef": {"name": "e"}}],
            "initContainers": [{"name": "fetch", "image": "example.test/fetch:1"}],
            "affinity": {"nodeAffinity": {}},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            "priorityClassName": "low",
            "runtimeClassName": "nvidia",
            "serviceAccountName": "site",
            "imagePullSecrets": [{"name": "registry"}],
            "podLabels": {"team": "x"},
            "podAnnotations": {"note": "y"},
            "storage": {"size": "5Gi", "storageClassName": "fast"},
        }
    ],
    "controller": {
        "protectFromEviction": True,
        "env": [{"name": "A", "value": "b"}],
        "volumes": [{"name": "more", "emptyDir": {}}],
        "volumeMounts": [{"name": "more", "mountPath": "/more"}],
        "initContainers": [{"name": "first", "image": "example.test/first:1"}],
        "image": "example.test/own-controller:2",
        "threads": 3,
        "resources": {"limits": {"cpu": "2"}},
        "storage": {"size": "3Gi", "storageClassName": "fast"},
    },
}


@pytest.fixture
def objects(federation: Build, owner: Owner, settings: Settings) -> Callable[..., Objects]:
    def build(stage: Lifecycle = Lifecycle.RUNNING, **spec: Any) -> Objects:
        found = federation(**spec)
        wanted = desired(found, owner, settings, PartitionPlan.of(found.spec), stage)
        return {(m["kind"], m["metadata"]["name"]): m for m in wanted.manifests}

    return build


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return pod


def container_of(workload: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod_of(workload)["containers"]
    found: dict[str, Any] = container
    return found


def environment_of(workload: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container_of(workload)["env"] if "value" in entry}


def test_credentials_of_the_output_become_the_controllers_environment(objects: Callable[..., Objects]) -> None:
    made = objects(output={"url": "s3://bucket", "secretRef": {"name": "s3"}})
    assert container_of(made["StatefulSet", "demo-controller"])["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert "envFrom" not in container_of(made["StatefulSet", "demo-a"])
    assert "envFrom" not in container_of(objects()["StatefulSet", "demo-controller"])


def test_learners_keep_their_state_where_the_group_says(objects: Callable[..., Objects]) -> None:
    kept = objects(learnerGroups=[{"name": "a", "replicas": 2, "storage": {"storageClassName": "fast"}}, {"name": "b"}])
    on_volume, in_pod = (kept["StatefulSet", f"demo-{group}"] for group in "ab")
    (claim,) = on_volume["spec"]["volumeClaimTemplates"]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "fast",
    }
    # The names that a StatefulSet looks for: template, set and ordinal.
    claims = [m for (kind, name), m in kept.items() if kind == "PersistentVolumeClaim" and name != "demo-controller"]
    assert [m["metadata"]["name"] for m in claims] == ["metisfl-state-demo-a-0", "metisfl-state-demo-a-1"]
    assert all(m["spec"] == claim["spec"] and m["metadata"]["ownerReferences"] for m in claims)
    order = [name for _, name in kept]
    assert order.index("metisfl-state-demo-a-1") < order.index("demo-a"), "the StatefulSet would make them itself"
    for workload, name in ((on_volume, claim["metadata"]["name"]), (in_pod, "metisfl-state")):
        mounts = {mount["name"]: mount["mountPath"] for mount in container_of(workload)["volumeMounts"]}
        assert mounts[name] == environment_of(workload)["METISFL_STATE_DIR"]
    assert "metisfl-state" not in {volume["name"] for volume in pod_of(on_volume)["volumes"]}
    assert {"name": "metisfl-state", "emptyDir": {}} in pod_of(in_pod)["volumes"]
    assert "volumeClaimTemplates" not in in_pod["spec"]


def test_an_external_group_becomes_no_workload(objects: Callable[..., Objects]) -> None:
    made = objects(learnerGroups=[{"name": "a"}, {"name": "hospital", "external": True, "maxLearners": 2}])
    assert [name for kind, name in made if kind == "StatefulSet"] == ["demo-controller", "demo-a"]


# From the oldest that the validator knows to its newest.
VERSIONS = [f"1.{minor}" for minor in range(25, 38)]
FEW = ("1.25", "1.37")


@pytest.mark.parametrize("version", [pytest.param(v, marks=[] if v in FEW else pytest.mark.slow) for v in VERSIONS])
@pytest.mark.parametrize("spec", [{}, FULL], ids=["small", "full"])
def test_objects_are_valid(objects: Callable[..., Objects], spec: dict[str, Any], version: str) -> None:
    made = objects(**spec)
    always = {"PersistentVolumeClaim", "ConfigMap", "Service", "StatefulSet", "NetworkPolicy"}
    assert {kind for kind, _ in made} == always | ({"PodDisruptionBudget"} if spec else set())
    for manifest in made.values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_every_object_belongs_to_the_federation(objects: Callable[..., Objects]) -> None:
    for manifest in objects().values():
        assert manifest["metadata"]["namespace"] == "lab"
        (reference,) = manifest["metadata"]["ownerReferences"]
        assert (reference["kind"], reference["name"], reference["uid"]) == ("Federation", "demo", "u-1")
        assert manifest["metadata"]["labels"]["metisfl.dev/federation"] == "demo"


def test_pods_are_restricted(objects: Callable[..., Objects]) -> None:
    """By the Pod Security Standard of that name, and without what they do not need."""
    for workload in (m for (kind, _), m in objects(**FULL).items() if kind == "StatefulSet"):
        pod = pod_of(workload)
        assert violations(pod) == []
        assert len(pod["initContainers"]) == 1
        for container in (*pod["containers"], *pod["initContainers"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False


def test_what_a_user_asks_of_an_init_container_is_theirs_to_answer_for(objects: Callable[..., Objects]) -> None:
    init = [{"name": "fetch", "image": "x", "securityContext": {"runAsUser": 0, "runAsNonRoot": False}}]
    pod = pod_of(objects(learnerGroups=[{"name": "a", "initContainers": init}])["StatefulSet", "demo-a"])
    assert violations(pod) == ["fetch: runAsNonRoot is not true", "fetch: runAsUser is 0"]


def test_mounts_have_volumes_and_volumes_are_mounted(objects: Callable[..., Objects]) -> None:
    for workload in (m for (kind, _), m in objects(**FULL).items() if kind == "StatefulSet"):
        mounted = [mount["name"] for mount in container_of(workload)["volumeMounts"]]
        claimed = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())]
        assert sorted(mounted) == sorted([*claimed, *(volume["name"] for volume in pod_of(workload)["volumes"])])


def test_the_controller_understands_its_environment(objects: Callable[..., Objects]) -> None:
    parsed = ControllerSettings.parse(environment_of(objects(**FULL)["StatefulSet", "demo-controller"]))
    assert parsed.federation_file == Path("/etc/metisfl/federation.json")
    assert parsed.partition_plan == Path("/etc/metisfl/partition-plan.json")
    assert parsed.federation_uid == "u-1"
    assert parsed.state_dir == Path("/var/lib/metisfl")
    assert (parsed.grpc_address.port, parsed.http_address.port) == (50051, 8080)


def test_a_learner_understands_its_environment(objects: Callable[..., Objects]) -> None:
    workload = objects(**FULL)["StatefulSet", "demo-a"]
    environment = environment_of(workload)
    parsed = LearnerSettings.from_environment({**environment, "METISFL_POD_NAME": "demo-a-1"})
    assert parsed.controller == "demo-controller.lab.svc:50051"
    assert parsed.entrypoint == "learner:Mine"
    assert (parsed.group, parsed.ordinal) == ("a", 1)
    assert parsed.park_after_stop
    assert environment["PYTHONPATH"] in [mount["mountPath"] for mount in container_of(workload)["volumeMounts"]]
    assert str(parsed.termination_log) == container_of(workload)["terminationMessagePath"]


def test_the_services_ports_are_the_containers(objects: Callable[..., Objects]) -> None:
    made = objects()
    service, workload = made["Service", "demo-controller"], made["StatefulSet", "demo-controller"]
    offered = {port["name"]: port["containerPort"] for port in container_of(workload)["ports"]}
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == offered
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_a_services_selector_does_not_pick_learners(objects: Callable[..., Objects]) -> None:
    made = objects()
    labels = made["StatefulSet", "demo-a"]["spec"]["template"]["metadata"]["labels"]
    assert not made["Service", "demo-controller"]["spec"]["selector"].items() <= labels.items()


def test_compilation_may_take_five_minutes(objects: Callable[..., Objects]) -> None:
    probe = container_of(objects()["StatefulSet", "demo-controller"])["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 300


@pytest.mark.parametrize(
    ("stage", "replicas", "service"),
    [
        (Lifecycle.RUNNING, {"demo-controller": 1, "demo-a": 2, "demo-b": 1}, True),
        (Lifecycle.FINISHED, {"demo-controller": 1, "demo-a": 0, "demo-b": 0}, True),
        (Lifecycle.SUSPENDED, {"demo-controller": 0, "demo-a": 0, "demo-b": 0}, True),
        (Lifecycle.EXPIRED, {"demo-controller": 0, "demo-a": 0, "demo-b": 0}, False),
    ],
)
def test_stages(objects: Callable[..., Objects], stage: Lifecycle, replicas: dict[str, int], service: bool) -> None:
    made = objects(stage)
    assert {name: m["spec"]["replicas"] for (kind, name), m in made.items() if kind == "StatefulSet"} == replicas
    assert (("Service", "demo-controller") in made) is service
    assert ("PersistentVolumeClaim", "demo-controller") in made


def test_the_controllers_copy_says_the_same_about_training(federation: Build, owner: Owner) -> None:
    original = federation(**FULL, training={"epochs": 7}, suspend=True, ttlSecondsAfterFinished=5)
    (text,) = controller_config(original, owner).values()
    copy = parse_federation(json.loads(text))
    assert copy.spec.training == original.spec.training
    assert copy.spec.controller.threads == 3
    assert [(g.name, g.replicas) for g in copy.spec.learner_groups] == [("a", 2)]
    # What nobody set is left out, as a controller of an older release may not know it; and what is not for it.
    assert "transport" not in json.loads(text)["spec"]
    assert copy.spec.suspend is False
    assert copy.spec.learner_groups[0].image is None
    assert copy.spec.learner_groups[0].volumes == []


def test_a_digest_tells_when_something_was_removed(objects: Callable[..., Objects]) -> None:
    def digest(**spec: Any) -> str:
        stamp: str = objects(**spec)["StatefulSet", "demo-a"]["metadata"]["annotations"][DIGEST_ANNOTATION]
        return stamp

    assert digest() == digest()
    assert digest() != digest(learnerGroups=[{"name": "a", "replicas": 2, "nodeSelector": {"x": "y"}}, {"name": "b"}])
