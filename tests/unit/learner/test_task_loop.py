"""What a learner decides on each task, without a connection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Layout
from metisfl.wire.limits import MAX_HELD_TASKS
from metisfl.wire.sections import Sections
from metisfl_learner.task_loop import Accepted, Answer, Cancel, Forget, Note, Send, Start, Stop, TaskLoop
from metisfl_learner.updates import Content
from metisfl_learner.work import Result

LAYOUT = Layout.of({"w": np.zeros(2, np.float32)})


def task(kind: str, task_id: str = "t", version: int = 0, reason: str = "") -> pb.Task:
    return pb.Task(task_id=task_id, kind=pb.TaskKind.Value(f"TASK_KIND_{kind}"), model_version=version, reason=reason)


def result(task_id: str = "t", base: int = 0, produces: int | None = None) -> Result:
    return Result(
        task_id=task_id,
        base_version=base,
        produces=base + 1 if produces is None else produces,
        content=Content.of(pb.UPLOAD_KIND_MODEL, Sections.of(Encoding(LAYOUT, Codec.FLOAT32)), LAYOUT.allocate()),
        report=pb.TrainingReport(),
    )


def holding(*results: Result) -> TaskLoop:
    return TaskLoop(held={r.task_id: r for r in results})


@pytest.mark.parametrize("kind", ["INITIALISE", "TRAIN", "EVALUATE"])
def test_work_is_started(kind: str) -> None:
    loop, order = TaskLoop(), task(kind)
    assert loop.receive(order) == [Start(order)]
    assert loop.ready() == ([], "t")


def test_running_task_is_not_started_twice() -> None:
    loop = TaskLoop()
    loop.receive(task("TRAIN"))
    assert loop.receive(task("TRAIN")) == []


def test_newer_task_replaces_the_running_one() -> None:
    loop, newer = TaskLoop(), task("TRAIN", "new", 1)
    loop.receive(task("TRAIN", "old"))
    first, second = loop.receive(newer)
    assert isinstance(first, Cancel)
    assert first.task_id == "old"
    assert second == Start(newer)


def test_result_is_held_and_sent() -> None:
    loop, update = TaskLoop(), result()
    loop.receive(task("TRAIN"))
    assert loop.trained(update) == [Send(update)]
    assert loop.ready() == (["t"], "")


def test_held_result_is_sent_instead_of_training_again() -> None:
    update = result()
    assert holding(update).receive(task("TRAIN")) == [Send(update)]


@pytest.mark.parametrize("kind", ["TRAIN", "EVALUATE"])
def test_committed_result_is_forgotten(kind: str) -> None:
    loop = holding(result("a", base=1), result("b", base=2))
    forgotten, _ = loop.receive(task(kind, "next", version=2))
    assert isinstance(forgotten, Forget)
    assert forgotten.task_id == "a"
    assert list(loop.held) == ["b"]


def test_initial_model_is_forgotten_once_version_0_exists() -> None:
    loop = holding(result("init", base=0, produces=0))
    loop.receive(task("TRAIN", "first", version=0))
    assert loop.held == {}


def test_resend() -> None:
    update = result()
    assert holding(update).receive(task("RESEND")) == [Send(update)]


def test_resend_of_the_running_task_changes_nothing() -> None:
    loop = TaskLoop()
    loop.receive(task("TRAIN"))
    assert loop.receive(task("RESEND")) == []


def test_resend_of_something_lost_is_answered() -> None:
    (answer,) = TaskLoop().receive(task("RESEND"))
    assert isinstance(answer, Answer)
    assert answer.message.failure.task_id == "t"


def test_discard_of_the_running_task_cancels_it() -> None:
    loop = TaskLoop()
    loop.receive(task("TRAIN"))
    assert loop.receive(task("DISCARD", reason="the round has closed")) == [Cancel("t", "the round has closed")]
    assert loop.running is None


def test_discard_of_a_held_result_forgets_it() -> None:
    loop = holding(result())
    assert loop.receive(task("DISCARD", reason="committed")) == [Forget("t", "committed")]
    assert loop.held == {}


def test_discard_of_something_unknown_changes_nothing() -> None:
    loop = holding(result())
    assert loop.receive(task("DISCARD", "other")) == []
    assert list(loop.held) == ["t"]


@pytest.mark.parametrize("outcome", [pb.OUTCOME_ACCEPTED, pb.OUTCOME_DUPLICATE])
def test_accepted_result_stays_held(outcome: Any) -> None:
    loop = holding(result())
    assert loop.received("t", pb.Receipt(outcome=outcome)) == []
    assert list(loop.held) == ["t"]


def test_late_result_is_forgotten() -> None:
    loop = holding(result())
    assert loop.received("t", pb.Receipt(outcome=pb.OUTCOME_LATE)) == [Forget("t", "the round had closed")]
    assert loop.held == {}


def test_rejection_is_told_with_the_controllers_words() -> None:
    loop = holding(result())
    _, note = loop.received("t", pb.Receipt(outcome=pb.OUTCOME_REJECTED, message="not finite"))
    assert note == Note("the update was rejected: not finite", warning=True)
    assert loop.held == {}


def test_receipt_for_something_forgotten_changes_nothing() -> None:
    assert TaskLoop().received("t", pb.Receipt(outcome=pb.OUTCOME_REJECTED)) == []


def test_oldest_results_give_way() -> None:
    loop = TaskLoop()
    for number in range(MAX_HELD_TASKS):
        loop.trained(result(str(number)))
    forgotten, sent = loop.trained(result("last"))
    assert isinstance(forgotten, Forget)
    assert forgotten.task_id == "0"
    assert isinstance(sent, Send)
    assert len(loop.held) == MAX_HELD_TASKS


def test_evaluation_asked_for_again_is_answered_from_memory() -> None:
    loop = TaskLoop()
    loop.receive(task("EVALUATE"))
    evaluation = pb.Evaluation(task_id="t", examples=5)
    loop.evaluated(evaluation)
    loop.ended("t")
    assert loop.receive(task("EVALUATE")) == [Answer(pb.LearnerMessage(evaluation=evaluation))]


def test_end_of_a_replaced_task_leaves_the_new_one_running() -> None:
    loop = TaskLoop()
    loop.receive(task("TRAIN", "old"))
    loop.receive(task("TRAIN", "new", 1))
    loop.ended("old")
    assert loop.ready() == ([], "new")


def test_wait_and_stop_pass_on_the_reason() -> None:
    loop = TaskLoop()
    assert loop.receive(task("WAIT", reason="two learners are missing")) == [Note("two learners are missing")]
    assert loop.receive(task("STOP", reason="done")) == [Stop("done")]


def test_kind_of_a_newer_protocol_is_left_alone_with_a_warning() -> None:
    loop = TaskLoop()
    (note,) = loop.receive(pb.Task(task_id="t", kind=99))  # type: ignore[arg-type]
    assert isinstance(note, Note)
    assert note.warning
    assert loop.running is None


def test_results_are_held_while_the_controller_says_that_they_are_in_no_version() -> None:
    """Without rounds, the version that a result goes into may be later than the one after its base."""
    loop = holding(result("one"), result("two", base=3))
    order = task("TRAIN", "next", version=4)
    order.uncommitted.append("two")
    accepted, forgotten, _ = loop.receive(order)
    assert (accepted, forgotten) == (Accepted("two"), Forget("one", "version 4 is committed"))
    assert list(loop.held) == ["two"]
    assert loop.receive(task("TRAIN", "later", version=5))[0] == Forget("two", "version 5 is committed")


@pytest.mark.parametrize("kind", ["TRAIN", "EVALUATE", "DISCARD"])
def test_a_counted_result_is_known_as_accepted_before_it_is_forgotten_and_the_next_task_begins(kind: str) -> None:
    loop = holding(result("t"), result("lost"))
    order = task(kind, "t" if kind == "DISCARD" else "next", version=1)
    order.counted = "t"
    accepted, forgotten, *_ = loop.receive(order)
    assert accepted == Accepted("t")
    assert isinstance(forgotten, Forget)
    assert forgotten.task_id == "t"
