"""What a pod's troubles are called, and whose words explain them."""

from __future__ import annotations

from typing import Any

import pytest

from metisfl_learner.exits import ExitCode
from metisfl_operator.reconcile.pods import Trouble, learner_id, ready, rejection_of, summary, trouble_of
from metisfl_operator.reconcile.reasons import LEARNER_EXITS, Reason


def pod(component: str = "learner", **status: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/component": component}
    return {"metadata": {"name": "demo-a-0", "uid": "p", "labels": labels}, "status": status}


def container(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "learner", "image": "img:1", **state}]}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"conditions": [{"type": "PodScheduled", "status": "True"}]},
        container(state={"waiting": {"reason": "ContainerCreating"}}),
        container(state={"waiting": {"reason": "PodInitializing"}}),
        container(state={"running": {}}),
        container(state=ended(0)),
        container(state={"running": {}}, lastState=ended(0)),
    ],
    ids=str,
)
def test_no_trouble(status: dict[str, Any]) -> None:
    assert trouble_of(pod(**status)) is None


@pytest.mark.parametrize("word", ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"])
def test_an_image_that_cannot_be_had(word: str) -> None:
    found = trouble_of(pod(**container(state={"waiting": {"reason": word, "message": "not there"}})))
    assert found is not None
    assert (found.reason, found.message) == (Reason.IMAGE_PULL_FAILED, "demo-a-0: image img:1: not there")


@pytest.mark.parametrize(("code", "reason"), LEARNER_EXITS.items())
def test_a_learners_exit_code_names_the_reason(code: int, reason: Reason) -> None:
    for status in (
        container(state=ended(code, "its words")),
        container(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=ended(code, "its words")),
        container(state={"running": {}}, lastState=ended(code, "its words")),
    ):
        found = trouble_of(pod(**status))
        assert found is not None
        assert (found.reason, found.message) == (reason, f"demo-a-0: exit code {code}: its words")


def test_every_exit_code_that_a_learner_documents_is_explained() -> None:
    assert set(LEARNER_EXITS) == set(ExitCode) - {ExitCode.FINISHED, ExitCode.UNEXPECTED}


def test_other_exit_codes_are_crashes() -> None:
    found = trouble_of(pod("controller", **container(state=ended(4, "boom"))))
    assert found is not None
    assert found.reason is Reason.CRASHED


def test_memory() -> None:
    found = trouble_of(pod(**container(lastState=ended(137, reason="OOMKilled"), state={"running": {}})))
    assert found is not None
    assert found.reason is Reason.OUT_OF_MEMORY


def test_a_crash_without_words_is_told_as_one() -> None:
    found = trouble_of(pod(**container(state=ended(1))))
    assert found is not None
    assert found.message == "demo-a-0: exit code 1: no last words"


def test_long_words_keep_their_end() -> None:
    found = trouble_of(pod(**container(state=ended(1, "line\n" * 1000 + "ValueError: the cause"))))
    assert found is not None
    assert found.message.endswith("ValueError: the cause")
    assert len(found.message) < 700
    assert "\n" not in found.message


CREATING = container(state={"waiting": {"reason": "ContainerCreating"}})


def failed_mount(first: str, last: str, message: str = 'configmap "code" not found') -> dict[str, Any]:
    return {
        "reason": "FailedMount",
        "message": message,
        "firstTimestamp": f"2024-05-01T10:{first}Z",
        "lastTimestamp": f"2024-05-01T10:{last}Z",
    }


def test_a_volume_that_cannot_be_mounted() -> None:
    event = failed_mount("00:00", "00:15")
    found = trouble_of(pod(**CREATING), [event])
    assert found is not None
    assert (found.reason, found.message) == (Reason.VOLUME_UNAVAILABLE, 'demo-a-0: configmap "code" not found')
    # An event outlives its cause by an hour; a container that runs has its volumes.
    assert trouble_of(pod(**container(state={"running": {}})), [event]) is None


@pytest.mark.parametrize("last", ["00:00", "00:09"])
def test_a_volume_that_is_late_is_no_trouble(last: str) -> None:
    assert trouble_of(pod(**CREATING), [failed_mount("00:00", last)]) is None


def test_failures_in_other_words_are_about_the_same_volume() -> None:
    attached = {**failed_mount("00:00", "00:00", "Multi-Attach error"), "reason": "FailedAttachVolume"}
    found = trouble_of(pod(**CREATING), [failed_mount("02:03", "02:03", "timed out"), attached])
    assert found is not None
    assert found.message == "demo-a-0: timed out"


def test_times_of_a_volumes_failures_are_read_from_newer_events_too() -> None:
    times = {
        "eventTime": "2024-05-01T10:00:00.000001Z",
        "series": {"count": 5, "lastObservedTime": "2024-05-01T10:00:15.5Z"},
    }
    once: dict[str, Any] = {"reason": "FailedMount", "message": "not found", "firstTimestamp": None}
    assert trouble_of(pod(**CREATING), [{**once, "metadata": {"creationTimestamp": "2024-05-01T10:00:00Z"}}]) is None
    assert trouble_of(pod(**CREATING), [{**once, "metadata": {}, **times}]) is not None


def test_a_pod_on_its_way_out_is_in_no_trouble() -> None:
    leaving = pod(**container(state=ended(3)))
    leaving["metadata"]["deletionTimestamp"] = "2024-05-01T10:00:00Z"
    assert trouble_of(leaving) is None
    assert not ready(leaving)


def test_pods_that_may_not_be_made() -> None:
    workload = {"metadata": {"name": "demo-a", "uid": "w"}}
    found = rejection_of(workload, [{"reason": "Other"}, {"reason": "FailedCreate", "message": "exceeded quota"}])
    assert found is not None
    assert (found.reason, found.message) == (Reason.PODS_REJECTED, "demo-a: exceeded quota")


def test_a_learner_is_known_by_group_and_ordinal() -> None:
    assert learner_id(pod(), "demo") == "a-0"


def test_one_cause_is_told_once_however_many_pods_it_has() -> None:
    same = [Trouble(Reason.ENTRYPOINT_INVALID, f"digits-silo-a-{i}", "no class 'Lerner'") for i in range(4)]
    other = Trouble(Reason.OUT_OF_MEMORY, "digits-silo-b-0", "killed")
    assert summary([same[0], other, *same[1:]], most=5) == [
        "digits-silo-a-0 and 3 more: no class 'Lerner'",
        "digits-silo-b-0: killed",
    ]


def test_of_many_causes_the_first_are_told_and_the_rest_counted() -> None:
    troubles = [Trouble(Reason.CRASHED, f"digits-silo-a-{i}", f"cause {i}") for i in range(8)]
    assert summary(troubles, most=5)[-2:] == ["digits-silo-a-4: cause 4", "and 3 more causes"]
