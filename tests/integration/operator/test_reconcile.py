"""Reconciling against a real API server and StatefulSet controller; tests play kubelet and federation controller."""

from __future__ import annotations

from typing import Any

import pytest

from metisfl.api import (
    EvaluatorDocument,
    FederationState,
    GlobalModel,
    LearnerDocument,
    MetricValue,
    OutputDocument,
    RoundProgress,
)
from metisfl_operator.reconcile.reconciler import InvalidFederationError
from tests.integration.operator.world import FEDERATION, PODS, World


def test_a_new_federation_gets_its_children(world: World) -> None:
    world.federate()
    world.reconcile()
    assert world.replicas() == {"demo-a": 2, "demo-b": 1, "demo-controller": 1}
    assert "demo-controller" in world.space.names("services")
    assert "demo-controller" in world.space.names("configmaps")
    assert "demo-controller" in world.space.names("persistentvolumeclaims")
    world.space.pods(*PODS)
    status = world.status()
    assert status["learners"] == {"desired": 3, "ready": 0, "participating": 0, "summary": "0/3"}
    assert status["observedGeneration"] == 1
    assert world.condition("Progressing")[:2] == ("True", "WaitingForController")
    assert world.condition("Complete")[:2] == ("False", "InProgress")


def test_a_second_pass_changes_nothing(world: World) -> None:
    world.federate()
    world.reconcile()
    world.space.pods(*PODS)
    world.later()
    world.reconcile()
    before = world.written_by_the_operator()
    world.later()
    world.reconcile()
    after = world.written_by_the_operator()
    assert after == before


def test_progress_is_shown(world: World) -> None:
    world.start()
    world.controller.says(
        FederationState.TRAINING,
        connected=("a-0", "b-0"),
        current_round=2,
        committed_rounds=1,
        round=RoundProgress(number=2, participants=2, started_at=world.clock[0]),
        metrics=[
            MetricValue(name="a_loss", value=0.25, version=1, examples=10),
            MetricValue(name="accuracy", value=0.912345678, version=1, examples=10),
        ],
        global_model=GlobalModel(version=1, sha256="ab" * 32, location="models/1.safetensors", bytes=10),
        start_time=world.clock[0],
    )
    world.later()
    world.reconcile()
    status = world.status()
    assert status["currentRound"] == 2
    assert status["learners"] == {"desired": 3, "ready": 2, "participating": 2, "summary": "2/3"}
    # The metric that may end the run comes first: it is the one `kubectl get` shows.
    assert status["metrics"] == [{"name": "accuracy", "value": "0.912346"}, {"name": "a_loss", "value": "0.25"}]
    assert status["globalModel"]["version"] == 1
    assert status["endpoint"] == f"demo-controller.{world.space.name}.svc:50051"
    assert world.condition("ControllerAvailable")[:2] == ("True", "Serving")
    assert world.condition("Progressing")[:2] == ("True", "Training")
    assert world.condition("LearnersReady")[:2] == ("False", "Starting")


def test_figures_are_written_at_most_every_five_seconds(world: World) -> None:
    world.start()
    world.controller.says(FederationState.TRAINING, current_round=2)
    world.later(1)
    world.reconcile()
    assert world.status()["currentRound"] == 1
    world.later(5)
    world.reconcile()
    assert world.status()["currentRound"] == 2


def test_a_condition_is_written_at_once_and_keeps_its_time(world: World) -> None:
    world.start()
    (before,) = [c for c in world.status()["conditions"] if c["type"] == "ControllerAvailable"]
    world.controller.says(FederationState.TRAINING, connected=("a-0",), current_round=1)
    world.later(1)
    world.reconcile()
    assert world.condition("LearnersReady")[0] == "False"
    (after,) = [c for c in world.status()["conditions"] if c["type"] == "ControllerAvailable"]
    assert after["lastTransitionTime"] == before["lastTransitionTime"]


def test_completion_scales_learners_away_and_keeps_serving(world: World) -> None:
    world.start()
    world.controller.says(
        FederationState.COMPLETE,
        reason="TargetMetricReached",
        message="accuracy 0.95 is at least 0.9",
        current_round=3,
        completion_time=world.clock[0],
    )
    world.later(1)
    world.reconcile()
    assert world.replicas() == {"demo-a": 0, "demo-b": 0, "demo-controller": 1}
    world.space.pods("demo-controller-0")
    assert world.condition("Complete") == ("True", "TargetMetricReached", "accuracy 0.95 is at least 0.9")
    assert world.condition("Progressing")[:2] == ("False", "Completed")
    assert world.condition("LearnersReady")[:2] == ("False", "ScaledDown")
    assert world.status()["completionTime"] == "2024-05-01T10:00:10Z"
    # A controller that is away for a moment does not bring the learners back.
    world.controller.document = None
    world.later()
    world.reconcile()
    assert world.replicas() == {"demo-a": 0, "demo-b": 0, "demo-controller": 1}
    assert world.condition("Complete")[:2] == ("True", "TargetMetricReached")


def test_after_its_time_to_live_only_volume_and_figures_stay(world: World) -> None:
    world.start(ttlSecondsAfterFinished=60)
    world.controller.says(FederationState.COMPLETE, current_round=5, completion_time=world.clock[0])
    world.later(1)
    world.reconcile()
    world.later(30)
    world.reconcile()
    assert world.replicas()["demo-controller"] == 1
    world.later(30)
    world.reconcile()
    assert world.replicas() == {"demo-a": 0, "demo-b": 0, "demo-controller": 0}
    assert "demo-controller" not in world.space.names("services")
    assert "demo-controller" in world.space.names("persistentvolumeclaims")
    world.later()
    world.reconcile()
    assert world.condition("ControllerAvailable")[:2] == ("False", "Expired")
    assert world.condition("Complete")[0] == "True"
    assert world.status()["currentRound"] == 5
    assert "endpoint" not in world.status()


def test_a_finished_federation_goes_on_when_its_spec_asks_for_more(world: World) -> None:
    world.start(ttlSecondsAfterFinished=60)
    world.controller.says(FederationState.COMPLETE, current_round=5, completion_time=world.clock[0])
    world.later(1)
    world.reconcile()
    world.controller.document = None
    world.later(60)
    world.reconcile()
    assert world.replicas()["demo-controller"] == 0
    # Or the pod that is going would be taken for the one that comes.
    world.space.pods()
    world.edit(termination={"maxRounds": 9})
    world.reconcile()
    # Only the controller can tell whether there is more to do.
    assert world.replicas() == {"demo-a": 0, "demo-b": 0, "demo-controller": 1}
    world.space.pods("demo-controller-0")
    world.space.pod_runs("demo-controller-0")
    world.controller.says(FederationState.WAITING_FOR_LEARNERS, connected=(), current_round=5)
    world.later()
    world.reconcile()
    assert world.replicas() == {"demo-a": 2, "demo-b": 1, "demo-controller": 1}
    assert world.condition("Complete")[:2] == ("False", "InProgress")


def test_suspend_scales_everything_to_zero_and_resume_brings_it_back(world: World) -> None:
    world.start()
    config = world.space.get("statefulsets", "demo-controller")["spec"]["template"]
    world.edit(suspend=True)
    world.reconcile()
    assert world.replicas() == {"demo-a": 0, "demo-b": 0, "demo-controller": 0}
    world.space.pods()
    assert "demo-controller" in world.space.names("persistentvolumeclaims")
    assert world.condition("Suspended")[:2] == ("True", "Suspended")
    assert world.condition("Progressing")[:2] == ("False", "Suspended")
    assert world.status()["learners"]["summary"] == "0/0"
    world.edit(suspend=False)
    world.controller.document = None
    world.later()
    world.reconcile()
    assert world.replicas() == {"demo-a": 2, "demo-b": 1, "demo-controller": 1}
    assert world.condition("Suspended")[:2] == ("False", "NotSuspended")
    assert world.space.get("statefulsets", "demo-controller")["spec"]["template"] == config


def test_the_controller_restarts_only_for_what_it_reads(world: World) -> None:
    world.federate()
    world.reconcile()

    def template() -> Any:
        return world.space.get("statefulsets", "demo-controller")["spec"]["template"]

    before = template()
    world.edit(learnerGroups=[{"name": "a", "replicas": 2, "nodeSelector": {"x": "y"}}, {"name": "b"}])
    world.reconcile()
    assert template() == before
    assert world.space.get("statefulsets", "demo-a")["spec"]["template"]["spec"]["nodeSelector"] == {"x": "y"}
    # Its file says so too, and that it reads again between rounds.
    world.edit(training={"epochs": 7})
    world.reconcile()
    assert template() == before
    assert '"epochs": 7' in world.space.get("configmaps", "demo-controller")["data"]["federation.json"]
    world.edit(controller={"memoryBudget": "1Gi"})
    world.reconcile()
    assert template() != before


def test_drift_is_repaired(world: World) -> None:
    world.federate()
    world.reconcile()
    world.space.patch("services", "demo-controller", {"spec": {"ports": [{"name": "x", "port": 1}]}})
    world.space.patch("services", "demo-controller", {"spec": {"selector": {"metisfl.dev/federation": "other"}}})
    world.space.delete("statefulsets", "demo-a")
    world.space.patch("configmaps", "demo-controller", {"data": {"federation.json": "{}"}})
    world.space.patch("statefulsets", "demo-b", {"spec": {"replicas": 3}})
    world.reconcile()
    service = world.space.get("services", "demo-controller")["spec"]
    assert [port["port"] for port in service["ports"]] == [50051, 8080]
    assert service["selector"]["metisfl.dev/federation"] == "demo"
    assert world.replicas() == {"demo-a": 2, "demo-b": 1, "demo-controller": 1}
    assert "pkg.mod:Class" in world.space.get("configmaps", "demo-controller")["data"]["federation.json"]


def test_a_removed_group_is_pruned_and_its_share_is_kept(world: World) -> None:
    world.federate(learner={"entrypoint": "m:C", "partitions": 6})
    world.reconcile()
    world.edit(learnerGroups=[{"name": "b"}, {"name": "c", "replicas": 2}])
    world.reconcile()
    assert world.space.names("statefulsets") == ["demo-b", "demo-c", "demo-controller"]
    plan = world.space.get("configmaps", "demo-controller")["data"]["partition-plan.json"]
    assert __import__("json").loads(plan) == {"count": 6, "offsets": {"a": 0, "b": 2, "c": 3}}


def test_a_removed_field_is_removed(world: World) -> None:
    world.federate(learnerGroups=[{"name": "a", "nodeSelector": {"x": "y"}}])
    world.reconcile()
    world.edit(learnerGroups=[{"name": "a"}])
    world.reconcile()
    assert "nodeSelector" not in world.space.get("statefulsets", "demo-a")["spec"]["template"]["spec"]


def test_an_external_group_has_no_pods_and_is_waited_for_in_words(world: World) -> None:
    groups = [*FEDERATION["spec"]["learnerGroups"], {"name": "hospital", "external": True, "maxLearners": 4}]
    world.start(learnerGroups=groups)
    assert world.replicas() == {"demo-a": 2, "demo-b": 1, "demo-controller": 1}
    ready = world.condition("LearnersReady")
    assert ready[:2] == ("False", "WaitingForSites")
    assert ready[2].startswith("3 of 4 learners are connected; nobody has joined of hospital;")
    assert "metisfl bundle demo --group hospital" in ready[2]
    assert world.condition("Progressing")[:2] == ("True", "Training")
    there = [LearnerDocument(id=f"hospital-{n}", group="hospital", connected=True, activity="Idle") for n in (0, 2)]
    assert world.controller.document is not None
    known = world.controller.document.learners
    world.controller.says(FederationState.TRAINING, current_round=1, learners=[*known, *there])
    world.later()
    world.reconcile()
    assert world.condition("LearnersReady")[:2] == ("True", "AllConnected")
    assert world.status()["learners"]["summary"] == "5/5"


def test_an_evaluator_group_can_be_added_and_is_told_apart(world: World) -> None:
    """Though every share of the data is taken: it needs none."""
    world.start()
    groups = [*FEDERATION["spec"]["learnerGroups"], {"name": "judge", "role": "Evaluator", "replicas": 2}]
    world.edit(learnerGroups=groups)
    world.reconcile()
    judges = [
        EvaluatorDocument(id=f"judge-{n}", group="judge", connected=not n, activity="Idle", version=2, missed=n)
        for n in (0, 1)
    ]
    metrics = [MetricValue(name="accuracy", value=0.75, version=2, examples=40)]
    world.controller.says(FederationState.TRAINING, evaluators=judges, evaluator_metrics=metrics)
    world.later()
    world.reconcile()
    assert world.replicas() == {"demo-a": 2, "demo-b": 1, "demo-judge": 2, "demo-controller": 1}
    assert world.condition("LearnersReady")[:2] == ("True", "AllConnected")
    status = world.status()
    assert status["learners"]["summary"] == "3/3"
    assert status["evaluators"] == {
        "desired": 2,
        "ready": 1,
        "summary": "1/2",
        "version": 2,
        "metrics": [{"name": "accuracy", "value": "0.75"}],
        "message": "judge-1 was busy or away for 1 version",
    }


def test_deliveries_to_the_output_are_told(world: World) -> None:
    world.start(output={"url": "s3://bucket/models"})
    url = "s3://bucket/models/demo-1"
    world.controller.says(FederationState.TRAINING, output=OutputDocument(url=url, message="403 Forbidden"))
    world.later()
    world.reconcile()
    assert world.condition("ModelDelivered") == ("False", "DeliveryFailed", f"{url}: 403 Forbidden")
    assert world.condition("Progressing")[0] == "True"
    world.controller.says(FederationState.COMPLETE, output=OutputDocument(url=url, delivered=5))
    world.later()
    world.reconcile()
    assert world.condition("ModelDelivered") == ("True", "Delivered", f"Version 5 is at {url}")
    world.controller.document = None
    world.later(60)
    world.reconcile()
    assert world.condition("ModelDelivered")[:2] == ("True", "Delivered")


def test_growth_beyond_the_shares_is_refused_in_words(world: World) -> None:
    world.start()
    world.edit(learnerGroups=[{"name": "a", "replicas": 5}, {"name": "b"}])
    world.later()
    world.reconcile()
    assert world.replicas()["demo-a"] == 2
    status, reason, message = world.condition("LearnersReady")
    assert (status, reason) == ("False", "NoPartitionLeft")
    assert "group a has shares of the data for 2 learners" in message


def test_a_name_of_somebody_else_is_left_alone(world: World) -> None:
    world.space.create("configmaps", {"metadata": {"name": "demo-controller"}, "data": {"mine": "yes"}})
    world.federate()
    world.reconcile()
    assert world.space.get("configmaps", "demo-controller")["data"] == {"mine": "yes"}
    status, reason, message = world.condition("Progressing")
    assert (status, reason) == ("False", "NameConflict")
    assert "ConfigMap demo-controller" in message
    assert ("Warning", "NameConflict", message) in world.space.events()


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ({"volumeMounts": [{"name": "nowhere", "mountPath": "/data"}]}, 'Not found: "nowhere"'),
        ({"volumes": [{"emptyDir": {}}]}, "volumes[2].name: Required value"),
        ({"nodeSelector": {"not a label": "x"}}, "not a label"),
    ],
    ids=str,
)
def test_a_template_whose_pods_are_not_valid_is_told_in_the_api_servers_words(
    world: World, group: dict[str, Any], words: str
) -> None:
    world.federate(learnerGroups=[{"name": "a", **group}])

    def told() -> bool:
        world.reconcile()
        return world.condition("LearnersReady")[1] == "PodsRejected"

    # The API server takes such a StatefulSet and refuses its pods.
    world.space.eventually("the refusal is told", told)
    assert words in world.condition("LearnersReady")[2]
    assert "PodsRejected" in [event[1] for event in world.space.events()]


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ({"resources": {"requests": ["cpu"]}}, "requests"),
        ({"resources": {"requests": {"cpu": "much"}}}, "quantities must match"),
    ],
    ids=str,
)
def test_a_pod_part_that_is_not_valid_is_told_in_the_api_servers_words(
    world: World, group: dict[str, Any], words: str
) -> None:
    world.federate(learnerGroups=[{"name": "a", **group}])
    world.reconcile()
    status, reason, message = world.condition("Progressing")
    assert (status, reason) == ("False", "ApplyRejected")
    assert message.startswith("StatefulSet demo-a: ")
    assert words in message
    assert [event[1] for event in world.space.events()] == ["ApplyRejected"]
    assert "demo-controller" in world.replicas(), "one object that is refused does not hold up the others"


def test_an_invalid_spec_is_told_where_the_api_server_let_it_pass(world: World) -> None:
    world.federate(termination={"targetMetric": {"name": "a"}})
    with pytest.raises(InvalidFederationError, match="exactly one of atLeast and atMost"):
        world.reconcile()
    status, reason, message = world.condition("Progressing")
    assert (status, reason) == ("False", "InvalidSpec")
    assert "spec.termination.targetMetric: set exactly one" in message
    assert world.space.names("statefulsets") == []
    assert [event[:2] for event in world.space.events()] == [("Warning", "InvalidSpec")]


@pytest.mark.parametrize(
    ("report", "reason", "words"),
    [
        (
            {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}},
            "ImagePullFailed",
            "image example.test/learner:1: no such image",
        ),
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {"terminated": {"exitCode": 3, "message": "cannot import module 'pkg'"}},
            },
            "EntrypointInvalid",
            "demo-a-0: exit code 3: cannot import module 'pkg'",
        ),
        (
            {"state": {"terminated": {"exitCode": 5, "message": "layer 'w' has shape (2, 2)"}}},
            "LearnerRefused",
            "layer 'w' has shape (2, 2)",
        ),
        (
            {"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
            "OutOfMemory",
            "demo-a-0: killed for using more memory",
        ),
    ],
)
def test_a_learner_in_trouble_is_explained(world: World, report: dict[str, Any], reason: str, words: str) -> None:
    world.start()
    world.space.pod_says("demo-a-0", **report)
    world.controller.says(FederationState.WAITING_FOR_LEARNERS, connected=("a-1", "b-0"))
    world.reconcile()
    for kind in ("LearnersReady", "Progressing"):
        status, found, message = world.condition(kind)
        assert (status, found) == ("False", reason)
        assert words in message
    assert [(event[0], event[1]) for event in world.space.events()].count(("Warning", reason)) == 1
    # While it tries again it is still the learner that crashed, until the controller sees it.
    world.space.pod_says("demo-a-0", **{**report, "state": {"running": {}}, "lastState": report["state"]})
    world.controller.says(FederationState.TRAINING)
    world.later()
    world.reconcile()
    assert world.condition("LearnersReady")[:2] == ("True", "AllConnected")


def test_a_pod_that_no_node_takes_is_explained(world: World) -> None:
    world.federate()
    world.reconcile()
    world.space.pods(*PODS)
    message = "0/1 nodes are available: 1 Insufficient cpu."
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    world.space.patch("pods", "demo-controller-0", {"status": {"conditions": [scheduled]}}, "status")
    world.reconcile()
    assert world.condition("ControllerAvailable") == ("False", "Unschedulable", f"demo-controller-0: {message}")
    assert world.condition("Progressing")[:2] == ("False", "Unschedulable")


def test_pods_that_may_not_be_made_are_explained(world: World) -> None:
    world.space.create("resourcequotas", {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    world.space.patch("resourcequotas", "none", {"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}}, "status")
    world.federate()
    world.reconcile()

    def refused() -> bool:
        world.reconcile()
        return world.condition("ControllerAvailable")[1] == "PodsRejected"

    world.space.eventually("the quota is told", refused)
    assert "exceeded quota" in world.condition("ControllerAvailable")[2]


def test_a_controller_that_stays_silent_is_told(world: World) -> None:
    world.start()
    world.controller.document = None
    world.later(1)
    world.reconcile()
    world.later(14)
    world.reconcile()
    assert world.condition("ControllerAvailable")[:2] == ("True", "Serving"), "it may be busy"
    world.later(1)
    world.reconcile()
    assert world.condition("ControllerAvailable") == ("False", "NoAnswer", "connection refused")


def test_a_controller_that_has_just_become_ready_need_not_answer_at_once(world: World) -> None:
    world.federate()
    world.reconcile()
    world.space.pods(*PODS)
    world.space.pod_runs("demo-controller-0")
    world.controller.document = None
    world.later(1)
    world.reconcile()
    world.later(14)
    world.reconcile()
    assert world.condition("ControllerAvailable")[:2] == ("False", "Starting"), "a Service takes a moment"
    world.later(1)
    world.reconcile()
    assert world.condition("ControllerAvailable")[:2] == ("False", "NoAnswer")


def test_a_failed_run_says_why_and_stops_its_learners(world: World) -> None:
    world.start()
    world.controller.says(FederationState.FAILED, reason="QuorumNotReached", message="2 of 3 learners were lost")
    world.later()
    world.reconcile()
    assert world.condition("Failed") == ("True", "QuorumNotReached", "2 of 3 learners were lost")
    assert world.condition("Complete")[:2] == ("False", "Failed")
    assert world.condition("Progressing")[:2] == ("False", "Failed")
    assert world.replicas()["demo-a"] == 0
    assert ("Warning", "QuorumNotReached", "2 of 3 learners were lost") in world.space.events()


def test_events_tell_the_story_once(world: World) -> None:
    world.start()
    for _ in range(3):
        world.later()
        world.reconcile()
    world.controller.says(FederationState.COMPLETE, reason="MaxRoundsReached", message="5 rounds are committed")
    for _ in range(3):
        world.later()
        world.reconcile()
    assert [event[:2] for event in world.space.events()] == [
        ("Normal", "Serving"),
        ("Normal", "AllConnected"),
        ("Normal", "Training"),
        ("Normal", "MaxRoundsReached"),
    ]


def test_a_damaged_plan_is_told_and_nothing_is_moved(world: World) -> None:
    world.start()
    annotation = {"metadata": {"annotations": {"metisfl.dev/partition-plan": "{"}}}
    world.space.patch("persistentvolumeclaims", "demo-controller", annotation)
    world.later()
    world.reconcile()
    assert world.condition("Progressing")[:2] == ("False", "PlanUnreadable")
    assert world.replicas() == {"demo-a": 2, "demo-b": 1, "demo-controller": 1}


def test_a_federation_being_deleted_gets_no_new_children(world: World) -> None:
    world.federate()
    world.space.patch("federations", "demo", {"metadata": {"finalizers": ["example.test/hold"]}})
    world.space.delete("federations", "demo")
    world.reconcile()
    assert world.space.names("statefulsets") == []
    world.space.patch("federations", "demo", {"metadata": {"finalizers": None}})


def test_learners_find_the_volumes_that_were_made_for_them(world: World) -> None:
    world.federate(learnerGroups=[{"name": "a", "replicas": 2, "storage": {"size": "2Gi"}}])
    world.reconcile()
    for ordinal in range(2):
        pod = world.space.eventually("a learner's pod", lambda n=ordinal: world.space.find("pods", f"demo-a-{n}"))
        claims = [
            v["persistentVolumeClaim"]["claimName"] for v in pod["spec"]["volumes"] if "persistentVolumeClaim" in v
        ]
        (claim,) = (world.space.get("persistentvolumeclaims", name) for name in claims)
        # With its owner it goes when the Federation does; one that the StatefulSet had made would stay.
        assert claim["metadata"]["ownerReferences"][0]["kind"] == "Federation"
        assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"
    assert world.condition("Progressing")[1] == "WaitingForController"
