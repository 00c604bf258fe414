"""The round state machine, event by event, on fake time. Lines are those of conftest's Script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Report
from metisfl_controller.rounds.phases import Phase, Resumed
from metisfl_controller.rounds.tasks import Kind, TaskId
from metisfl_controller.rounds.termination.target import Target

DEADLINE = 100.0
GRACE = 15.0

Scripts = Callable[..., Any]


def train_task(learner: str, version: int, incarnation: int = 1, attempt: int = 1, federation: str = "uid") -> str:
    return str(TaskId(federation, incarnation, Kind.TRAIN, version, learner, attempt))


# ---- the normal course


def test_a_whole_federation(script: Scripts) -> None:
    f = script(learners=2, max_rounds=2)
    for event, expected in (
        (lambda: f.ready("a-0"), ["a-0 waits"]),
        (lambda: f.ready("a-1"), ["a-1 waits", "a-0 initialises"]),
        (lambda: f.uploads("a-0"), ["adopt a-0"]),
        (lambda: f.committed(0), ["begin 1", "a-0 trains and evaluates 0", "a-1 trains and evaluates 0"]),
        (lambda: f.evaluates(0, a_0=0.25), []),
        (lambda: f.evaluates(0, a_1=0.75), ["metrics 0 accuracy=0.5/20"]),
        (lambda: f.uploads("a-1", examples=30), ["fold a-1 x30"]),
        (lambda: f.uploads("a-0", examples=10), ["fold a-0 x10", "commit 1 of a-0 a-1"]),
        (lambda: f.committed(1), ["begin 2", "a-0 trains and evaluates 1", "a-1 trains and evaluates 1"]),
        (lambda: f.evaluates(1, a_0=0.5, a_1=0.5), ["metrics 1 accuracy=0.5/20"]),
        (lambda: f.uploads("a-0", "a-1"), ["fold a-0 x10", "fold a-1 x10", "commit 2 of a-0 a-1"]),
        (lambda: f.committed(2), ["a-0 evaluates 2", "a-1 evaluates 2"]),
        (lambda: f.evaluates(2, a_0=1.0), []),
        (lambda: f.evaluates(2, a_1=0.5), ["metrics 2 accuracy=0.75/20", "Complete: MaxRoundsReached at 2"]),
        # And then nothing more, whatever comes.
        (lambda: f.ready("a-0", "a-2"), []),
        (lambda: f.after(10_000), []),
    ):
        assert event() == expected


def test_orders_say_round_deadline_and_identity(script: Scripts) -> None:
    f = script(learners=1, incarnation=4)
    f.started("a-0")
    order = f.orders[-1].order
    assert str(order.task) == "uid/4/train/0/a-0/1"
    assert (order.round, order.deadline, order.evaluate) == (1, 1000.0 + DEADLINE, True)


@pytest.mark.parametrize(("every", "evaluated"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3, 4]), (9, [0, 4])])
def test_versions_are_evaluated_as_often_as_asked_and_the_last_always(
    script: Scripts, every: int, evaluated: list[int]
) -> None:
    f = script(learners=1, max_rounds=4, evaluate_every=every)
    f.started("a-0")
    lines = []
    for version in range(5):
        if f.tasks["a-0"].kind is Kind.EVALUATE or f.orders[-1].order.evaluate:
            lines += f.evaluates(version, a_0=0.5)
        if version < 4:
            f.uploads("a-0")
            f.committed(version + 1)
    assert [int(line.split()[1]) for line in lines if line.startswith("metrics")] == evaluated
    assert f.end is not None


# ---- gathering and the initial model


def test_the_first_start_gives_the_rest_some_time(script: Scripts) -> None:
    f = script(learners=3, min_learners=2)
    assert f.ready("a-1", "a-2") == ["a-1 waits", "a-2 waits"]
    assert f.after(GRACE - 1) == []
    assert f.after(1) == ["a-1 initialises"]


def test_everybody_there_means_no_waiting(script: Scripts) -> None:
    f = script(learners=3, min_learners=2)
    f.ready("a-2", "a-1")
    assert f.ready("a-0") == ["a-0 waits", "a-0 initialises"]


def test_the_grace_starts_anew_when_learners_are_too_few_again(script: Scripts) -> None:
    f = script(learners=3, min_learners=2)
    f.ready("a-0", "a-1")
    f.after(GRACE - 1)
    f.lost("a-0")
    assert f.after(GRACE) == []
    f.ready("a-0")
    assert f.after(GRACE - 1) == []
    assert f.after(1) == ["a-0 initialises"]


def test_the_first_learner_is_the_first_by_number_not_by_letter(script: Scripts) -> None:
    f = script(learners=3)
    assert f.ready("a-11", "a-2", "b-0")[-1] == "a-2 initialises"


@pytest.mark.parametrize(
    ("misfortune", "said"),
    [
        (lambda f: f.lost("a-0"), []),
        (lambda f: f.fails("a-0"), []),
        (lambda f: f.after(DEADLINE), ["a-0 discards 0"]),
    ],
    ids=["dies", "fails", "hangs"],
)
def test_another_learner_initialises_when_the_first_does_not(
    script: Scripts, misfortune: Callable[[Any], list[str]], said: list[str]
) -> None:
    f = script(learners=2, min_learners=1)
    f.ready("a-0", "a-1")
    f.after(GRACE)
    first = f.tasks["a-0"]
    assert misfortune(f) == [*said, "a-1 initialises"]
    assert not f.machine.expects(first)
    assert f.do(m.InitialModelVerified(first)) == []
    assert f.uploads("a-1") == ["adopt a-1"]


def test_a_restarted_initialiser_is_asked_again(script: Scripts) -> None:
    f = script(learners=2)
    f.ready("a-0", "a-1")
    assert f.ready("a-0") == ["a-0 initialises"]


def test_no_learner_can_initialise(script: Scripts) -> None:
    f = script(learners=2)
    f.ready("a-0", "a-1")
    f.fails("a-0")
    assert f.fails("a-1") == ["Failed: InitialModelFailed at None"]
    assert "see the learners' logs" in f.end.message


def test_two_initial_models_are_one_too_many(script: Scripts) -> None:
    f = script(learners=1)
    f.ready("a-0")
    task = f.tasks["a-0"]
    assert f.uploads("a-0") == ["adopt a-0"]
    assert f.do(m.InitialModelVerified(task)) == []
    assert not f.machine.expects(task)


def test_a_round_waits_for_enough_learners_between_rounds(script: Scripts) -> None:
    f = script(learners=2)
    f.started("a-0", "a-1")
    f.uploads("a-0", "a-1")
    f.lost("a-1")
    assert f.committed(1) == []
    assert f.machine.phase is Phase.BETWEEN
    assert f.after(10 * DEADLINE) == []
    assert f.ready("a-1") == ["a-1 waits", "begin 2", "a-0 trains and evaluates 1", "a-1 trains and evaluates 1"]


# ---- learners that are lost, late or damaged


def test_a_round_with_quorum_closes_at_once_when_the_rest_is_lost(script: Scripts) -> None:
    f = script(learners=4, quorum_percent=75)
    f.started("a-0", "a-1", "a-2", "b-0")
    f.uploads("a-0", "a-1")
    assert f.lost("b-0") == []
    assert f.uploads("a-2") == ["fold a-2 x10", "commit 1 of a-0 a-1 a-2, lost b-0"]


def test_a_loss_may_be_what_closes_the_round(script: Scripts) -> None:
    f = script(learners=4, quorum_percent=75)
    f.started("a-0", "a-1", "a-2", "b-0")
    f.uploads("a-0", "a-1", "a-2")
    assert f.lost("b-0") == ["commit 1 of a-0 a-1 a-2, lost b-0"]


def test_a_late_learner_is_waited_for_until_the_deadline(script: Scripts) -> None:
    f = script(learners=2, quorum_percent=50)
    f.started("a-0", "a-1")
    assert f.uploads("a-0") == ["fold a-0 x10"]
    assert f.after(DEADLINE - 0.5) == []
    assert f.after(0.5) == ["commit 1 of a-0, lost a-1", "a-1 discards 0"]
    late = f.tasks["a-1"]
    assert not f.machine.expects(late)
    assert f.do(m.UpdateVerified(late, m.Work(10))) == []
    # It takes part in the next round.
    assert "a-1 trains and evaluates 1" in f.committed(1)
    assert f.do(m.UpdateVerified(late, m.Work(10))) == []


def test_an_upload_after_the_loss_still_counts(script: Scripts) -> None:
    """The lease ended while the upload was on its way."""
    f = script(learners=2)
    f.started("a-0", "a-1")
    f.uploads("a-0")
    f.lost("a-1")
    assert f.machine.expects(f.tasks["a-1"])
    assert f.uploads("a-1") == ["fold a-1 x10", "commit 1 of a-0 a-1"]


def test_a_deadline_without_quorum_gives_more_time_three_times_and_then_fails(script: Scripts) -> None:
    f = script(learners=3)
    f.started("a-0", "a-1", "b-0")
    f.uploads("a-1")
    for _ in range(2):
        assert f.after(DEADLINE) == []
        assert f.after(DEADLINE - 1) == []
        f.now -= DEADLINE - 1
    assert f.after(DEADLINE)[-1:] == ["Failed: QuorumNotReached at 0"]
    assert f.end.message == (
        "round 1: 1 of 3 learners delivered in 3 attempts of 100 s, 3 are needed; missing: a-0, b-0"
    )


def test_a_round_does_not_wait_for_who_was_scaled_away(script: Scripts) -> None:
    f = script(learners=3)
    f.started("a-0", "a-1", "b-0")
    f.uploads("a-0")
    f.lost("a-1")
    assert f.changes(places={"a": 1, "b": 1}, min_learners=2, expected_learners=2) == []
    assert f.uploads("b-0") == ["fold b-0 x10", "commit 1 of a-0 b-0, lost a-1"]


@pytest.mark.parametrize("changes", [{"places": {"a": 1}}, {"revoked": frozenset({"a-1"})}], ids=str)
def test_nor_for_who_goes_later(script: Scripts, changes: dict[str, object]) -> None:
    """The controller hears of the new number before the pod is stopped; until then its update counts."""
    f = script(learners=2)
    f.started("a-0", "a-1")
    f.changes(**changes, min_learners=1, expected_learners=1)
    f.uploads("a-0")
    assert f.lost("a-1") == ["commit 1 of a-0, lost a-1"]
    assert not f.machine.expects(f.tasks["a-1"])


def test_who_is_lost_and_has_a_place_is_waited_for_as_before(script: Scripts) -> None:
    f = script(learners=2)
    f.started("a-0", "a-1")
    f.uploads("a-0")
    f.lost("a-1")
    assert f.changes(places={"a": 2}) == []


def test_a_round_whose_participants_were_all_scaled_away_is_others(script: Scripts) -> None:
    f = script(learners=1)
    f.started("a-0")
    f.changes(places={"b": 1})
    assert f.lost("a-0") == [], "nobody is there to ask instead"
    f.ready("b-0")
    assert f.uploads("b-0")[-1] == "commit 1 of b-0, lost a-0"


def test_one_who_was_scaled_away_was_one_too_many_when_more_were_asked(script: Scripts) -> None:
    f = script(learners=3, over_select=1)
    f.started("a-0", "a-1", "a-2")
    f.changes(places={"a": 2})
    assert f.lost("a-2") == []
    assert not any("commit" in line for line in f.uploads("a-0")), "two are needed still"
    assert f.uploads("a-1")[-1] == "commit 1 of a-0 a-1, lost a-2"


def test_a_late_learner_delivers_in_the_second_attempt(script: Scripts) -> None:
    f = script(learners=2)
    f.started("a-0", "a-1")
    f.uploads("a-0")
    f.after(DEADLINE)
    assert f.machine.round.attempt == 2
    assert f.uploads("a-1") == ["fold a-1 x10", "commit 1 of a-0 a-1"]


def test_a_learner_whose_task_failed_is_asked_again_at_the_next_attempt(script: Scripts) -> None:
    f = script(learners=2)
    f.started("a-0", "a-1")
    f.uploads("a-0")
    assert f.fails("a-1") == []
    assert f.after(DEADLINE) == ["a-1 trains and evaluates 0"]
    assert f.uploads("a-1") == ["fold a-1 x10", "commit 1 of a-0 a-1"]


def test_all_dead(script: Scripts) -> None:
    f = script(learners=2)
    f.started("a-0", "a-1")
    assert f.lost("a-0", "a-1") == []
    lines = [line for _ in range(3) for line in f.after(DEADLINE)]
    assert lines == ["Failed: QuorumNotReached at 0"]
    assert f.end.message.endswith("missing: a-0, a-1")


def test_all_dead_and_back_again(script: Scripts) -> None:
    f = script(learners=2)
    f.started("a-0", "a-1")
    tasks = dict(f.tasks)
    f.lost("a-0", "a-1")
    f.after(DEADLINE)
    assert f.ready("a-0", "a-1") == ["a-0 trains and evaluates 0", "a-1 trains and evaluates 0"]
    assert f.tasks == tasks
    assert f.uploads("a-0", "a-1")[-1] == "commit 1 of a-0 a-1"


def test_a_learner_restarted_in_mid_round_gets_the_same_task(script: Scripts) -> None:
    f = script(learners=2)
    f.started("a-0", "a-1")
    before = f.tasks["a-1"]
    # Once with its lease expired, once so fast that nobody noticed.
    f.lost("a-1")
    assert f.ready("a-1") == ["a-1 trains and evaluates 0"]
    assert f.ready("a-1") == ["a-1 trains and evaluates 0"]
    assert f.tasks["a-1"] == before
    assert f.uploads("a-0", "a-1")[-1] == "commit 1 of a-0 a-1"


def test_a_delivered_learner_restarted_in_mid_round_waits(script: Scripts) -> None:
    f = script(learners=2)
    f.started("a-0", "a-1")
    f.uploads("a-1")
    f.lost("a-1")
    assert f.ready("a-1") == ["a-1 waits"]
    assert f.uploads("a-0")[-1] == "commit 1 of a-0 a-1"


def test_a_reconnected_learner_that_is_still_at_work_is_left_alone(script: Scripts) -> None:
    f = script(learners=2)
    f.started("a-0", "a-1")
    assert f.ready("a-1", running=str(f.tasks["a-1"])) == []
    f.lost("a-1")
    assert f.ready("a-1", running=str(f.tasks["a-1"])) == []
    assert f.uploads("a-0", "a-1")[-1] == "commit 1 of a-0 a-1"


def test_a_refused_update_is_not_asked_for_again(script: Scripts) -> None:
    f = script(learners=4, quorum_percent=75)
    f.started("a-0", "a-1", "a-2", "b-0")
    assert f.is_rejected("b-0") == []
    assert not f.machine.expects(f.tasks["b-0"])
    assert f.ready("b-0") == ["b-0 waits"]
    assert f.uploads("b-0", "a-0", "a-1", "a-2")[-1] == "commit 1 of a-0 a-1 a-2, lost b-0"
    assert "b-0 trains and evaluates 1" in f.committed(1)


def test_a_round_that_can_no_longer_reach_its_quorum_fails_at_once(script: Scripts) -> None:
    """Nobody is left who might deliver: waiting out three deadlines would change nothing."""
    f = script(learners=2)
    f.started("a-0", "a-1")
    assert f.uploads("a-0") == ["fold a-0 x10"]
    assert f.is_rejected("a-1") == ["Failed: QuorumNotReached at 0"]
    assert "missing: a-1" in f.end.message


def test_a_rule_that_needs_more_updates_than_the_quorum_is_waited_for(script: Scripts) -> None:
    f = script(learners=4, quorum_percent=50, min_updates=3)
    f.started("a-0", "a-1", "a-2", "b-0")
    f.uploads("a-0", "a-1")
    assert f.after(DEADLINE) == []
    assert f.machine.round.attempt == 2
    f.uploads("a-2")
    assert f.after(DEADLINE)[0] == "commit 1 of a-0 a-1 a-2, lost b-0"


def test_a_rule_that_never_gets_its_updates_fails_the_round(script: Scripts) -> None:
    f = script(learners=3, quorum_percent=50, over_select=2, min_updates=3)
    f.started("a-0", "a-1", "b-0")
    f.uploads("a-0", "a-1")
    assert f.is_rejected("b-0") == ["Failed: QuorumNotReached at 0"]
    assert "2 of 3 learners delivered" in f.end.message
    assert "3 are needed" in f.end.message


def test_newcomers_may_save_a_round_whose_updates_were_refused(script: Scripts) -> None:
    f = script(learners=3, min_learners=2, quorum_percent=60)
    f.ready("a-0", "a-1")
    f.after(GRACE)
    f.uploads("a-0")
    f.committed(0)
    f.ready("b-0")
    f.uploads("a-0")
    assert f.is_rejected("a-1") == ["b-0 trains and evaluates 0"]
    assert f.uploads("b-0") == ["fold b-0 x10", "commit 1 of a-0 b-0, lost a-1"]


@pytest.mark.parametrize("repeat", ["uploads", "rejects", "fails", "is lost"])
def test_what_was_delivered_counts_once_and_stays(script: Scripts, repeat: str) -> None:
    f = script(learners=2)
    f.started("a-0", "a-1")
    f.uploads("a-0")
    again = {"uploads": f.uploads, "rejects": f.is_rejected, "fails": f.fails, "is lost": f.lost}[repeat]
    assert again("a-0") == []
    assert f.uploads("a-1") == ["fold a-1 x10", "commit 1 of a-0 a-1"]
    assert again("a-1") == []


# ---- joining in mid-round


def test_a_newcomer_waits_for_the_next_round(script: Scripts) -> None:
    f = script(learners=3, min_learners=2)
    f.ready("a-0", "a-1")
    f.after(GRACE)
    f.uploads("a-0")
    f.committed(0)
    assert f.ready("b-0") == ["b-0 waits"]
    assert f.uploads("a-0", "a-1")[-1] == "commit 1 of a-0 a-1"
    assert f.committed(1) == [
        "begin 2",
        "a-0 trains and evaluates 1",
        "a-1 trains and evaluates 1",
        "b-0 trains and evaluates 1",
    ]


def test_a_newcomer_takes_part_in_a_second_attempt(script: Scripts) -> None:
    f = script(learners=3, min_learners=2, quorum_percent=60)
    f.ready("a-0", "a-1")
    f.after(GRACE)
    f.uploads("a-0")
    f.committed(0)
    f.ready("b-0")
    f.uploads("a-0")
    assert f.after(DEADLINE) == ["b-0 trains and evaluates 0"]
    assert f.tasks["b-0"].attempt == 2
    assert f.uploads("b-0") == ["fold b-0 x10"]
    assert f.lost("a-1") == ["commit 1 of a-0 b-0, lost a-1"]


def test_what_a_newcomer_brings_along_is_discarded(script: Scripts) -> None:
    f = script(learners=2)
    f.ready("a-0", held=("nonsense", train_task("a-0", 7)), running=train_task("a-0", 3, federation="another"))
    f.ready("a-1")
    f.uploads("a-0")
    assert f.committed(0) == [
        "begin 1",
        "a-0 trains and evaluates 0",
        "a-0 discards nonsense",
        "a-0 discards 7",
        "a-0 discards 3",
        "a-1 trains and evaluates 0",
    ]


# ---- a restarted controller


def test_a_restarted_controller_asks_for_what_learners_hold(script: Scripts) -> None:
    f = script(learners=3, max_rounds=9, incarnation=2, resumed=Resumed(version=4, started_at=900.0))
    assert f.ready("a-0", held=(train_task("a-0", 3), train_task("a-0", 4))) == ["a-0 waits"]
    assert f.ready("a-1", running=train_task("a-1", 4)) == ["a-1 waits"]
    assert f.ready("b-0") == [
        "b-0 waits",
        "begin 5",
        "a-0 resends 4",
        "a-0 discards 3",
        "b-0 trains and evaluates 4",
    ]
    assert str(f.tasks["a-0"]) == train_task("a-0", 4)
    assert f.tasks["b-0"].incarnation == 2
    # The one that is still at work delivers under the old name.
    f.tasks["a-1"] = TaskId.parse(train_task("a-1", 4))
    assert f.uploads("a-0", "a-1", "b-0")[-1] == "commit 5 of a-0 a-1 b-0"


def test_a_version_made_anew_is_not_the_one_that_an_earlier_controller_made(script: Scripts) -> None:
    """Its state may be a backup of version 4, or lack what was made without checkpoints; learners go on from later."""
    f = script(learners=2, evaluate_every=99, max_rounds=9, incarnation=2, resumed=Resumed(version=4, started_at=900.0))
    f.ready("a-0", "a-1")
    f.uploads("a-0", "a-1")
    f.lost("a-1")
    f.ready("a-1", held=(train_task("a-1", 5, incarnation=1),))
    assert not f.machine.will_expect(TaskId.parse(train_task("a-1", 5, incarnation=1)))
    assert f.committed(5) == ["begin 6", "a-0 trains 5", "a-1 trains 5", "a-1 discards 5"]
    # Its own tasks are still asked for.
    mine = str(f.tasks["a-1"])
    f.lost("a-1")
    assert f.ready("a-1", held=(mine,)) == ["a-1 resends 5"]


def test_a_restarted_controller_gives_everybody_time_to_return(script: Scripts) -> None:
    """Otherwise the first few to reconnect would begin, and what the others hold would be lost."""
    resumed = Resumed(version=4, started_at=900.0)
    f = script(
        learners=4, evaluate_every=5, min_learners=2, quorum_percent=50, max_rounds=9, incarnation=2, resumed=resumed
    )
    f.ready("a-0", "a-1", held=())
    assert f.machine.phase is Phase.BETWEEN
    f.ready("a-2", held=(train_task("a-2", 4),))
    assert f.after(GRACE - 1) == []
    assert f.after(1) == ["begin 5", "a-0 trains 4", "a-1 trains 4", "a-2 resends 4"]
    # That was once: later rounds begin as soon as they can.
    f.uploads("a-0", "a-1", "a-2")
    assert f.committed(5)[0] == "begin 6"


@pytest.mark.parametrize(
    "stale",
    [
        train_task("a-0", 3),
        train_task("a-1", 4),
        train_task("a-0", 4, federation="another"),
        str(TaskId("uid", 1, Kind.EVALUATE, 4, "a-0", 1)),
        "uid/1/train/4/a-0",
        "",
        "uid/x/train/4/a-0/1",
    ],
)
def test_what_does_not_serve_the_open_round_is_discarded(script: Scripts, stale: str) -> None:
    f = script(learners=1, max_rounds=9, incarnation=2, resumed=Resumed(version=4, started_at=900.0))
    lines = f.ready("a-0", held=(stale,))
    assert lines[:3] == ["a-0 waits", "begin 5", "a-0 trains and evaluates 4"]
    assert [line for line in lines if "discards" in line] == lines[3:]
    assert len(lines) == 4


def test_a_restarted_controller_checks_the_target_of_the_version_it_finds(script: Scripts) -> None:
    """The controller before may have died after it recorded the metrics and before it acted on them."""
    target = Target("accuracy", at_least=0.9)
    f = script(learners=1, max_rounds=9, target=target, resumed=Resumed(version=4, started_at=900.0))
    assert f.ready("a-0")[-1] == "a-0 trains and evaluates 4"
    assert f.evaluates(4, a_0=0.9)[-1] == "Complete: TargetMetricReached at 4"


def test_an_evaluation_sent_again_before_the_round_begins_counts(script: Scripts) -> None:
    """A learner repeats its last evaluation when it reconnects; the others may still be on their way."""
    f = script(learners=2, max_rounds=9, incarnation=2, resumed=Resumed(version=4, started_at=900.0))
    f.ready("a-0", held=(train_task("a-0", 4),))
    assert f.evaluates(4, a_0=0.5) == []
    f.ready("a-1", held=(train_task("a-1", 4),))
    assert f.evaluates(4, a_1=1.0) == ["metrics 4 accuracy=0.75/20"]


def test_a_controller_restarted_after_the_last_round_evaluates_the_last_version(script: Scripts) -> None:
    f = script(learners=2, max_rounds=4, resumed=Resumed(version=4, started_at=900.0))
    assert f.after(0) == []
    assert f.ready("a-0", held=(train_task("a-0", 3),)) == ["a-0 discards 3", "a-0 evaluates 4"]
    # The first to return does not speak for all.
    assert f.evaluates(4, a_0=0.5) == []
    assert f.ready("a-1") == ["a-1 evaluates 4"]
    assert f.evaluates(4, a_1=1.0) == ["metrics 4 accuracy=0.75/20", "Complete: MaxRoundsReached at 4"]


def test_those_who_do_not_return_for_the_last_evaluation_are_given_up(script: Scripts) -> None:
    f = script(learners=2, max_rounds=4, resumed=Resumed(version=4, started_at=900.0))
    f.after(0)
    f.ready("a-0")
    assert f.evaluates(4, a_0=0.5) == []
    assert f.after(GRACE) == ["metrics 4 accuracy=0.5/10", "Complete: MaxRoundsReached at 4"]


@pytest.mark.parametrize("limits", [{"max_rounds": 4}, {"max_rounds": 9, "max_duration": 50.0}])
def test_a_federation_that_has_ended_stays_ended(script: Scripts, limits: dict[str, Any]) -> None:
    resumed = Resumed(version=4, started_at=900.0, ended=True)
    f = script(learners=1, resumed=resumed, **limits)
    assert f.machine.phase is Phase.ENDED
    assert f.after(1000) == []
    assert f.ready("a-0") == []


# ---- the end by target or time


@pytest.mark.parametrize(
    ("target", "values", "reached"),
    [
        (Target("accuracy", at_least=0.9), {"a_0": 0.85, "a_1": 0.96}, True),
        (Target("accuracy", at_least=0.9), {"a_0": 0.85, "a_1": 0.94}, False),
        (Target("accuracy", at_most=0.5), {"a_0": 0.5, "a_1": 0.5}, True),
        (Target("accuracy", at_most=0.5), {"a_0": 0.5, "a_1": 0.6}, False),
        (Target("loss", at_most=100.0), {"a_0": 0.5, "a_1": 0.6}, False),
    ],
)
def test_the_target(script: Scripts, target: Target, values: dict[str, float], reached: bool) -> None:
    f = script(learners=2, target=target)
    f.started("a-0", "a-1")
    lines = f.evaluates(0, **values)
    assert lines[0].startswith("metrics 0")
    expected = ["Complete: TargetMetricReached at 0"] if reached else []
    assert [line for line in lines[1:] if "discards" not in line and "remark" not in line] == expected
    if reached:
        assert lines[1:3] == ["a-0 discards 0", "a-1 discards 0"]
        assert str(target) in f.end.message


def test_the_target_counts_only_with_a_quorum_of_evaluations(script: Scripts) -> None:
    f = script(learners=3, quorum_percent=67, target=Target("accuracy", at_least=0.9))
    f.started("a-0", "a-1", "a-2")
    f.uploads("a-0", "a-1", "a-2")
    f.committed(1)
    f.evaluates(1, a_0=1.0)
    f.uploads("a-0", "a-1")
    f.uploads("a-2")
    assert f.end is None
    assert f.machine.phase is Phase.COMMITTING


def test_a_quorum_of_evaluations_is_enough_when_the_round_closes(script: Scripts) -> None:
    f = script(learners=3, quorum_percent=60, target=Target("accuracy", at_least=0.9))
    f.started("a-0", "a-1", "a-2")
    assert f.evaluates(0, a_0=1.0, a_1=0.9) == []
    f.uploads("a-0", "a-1")
    lines = f.lost("a-2")
    assert lines[0] == "metrics 0 accuracy=0.95/20"
    assert lines[-1] == "Complete: TargetMetricReached at 0"


def test_a_learner_restarted_while_evaluating_is_waited_for(script: Scripts) -> None:
    """Its evaluation belongs to the version, and the target may depend on it."""
    f = script(learners=2, target=Target("accuracy", at_least=0.9))
    f.started("a-0", "a-1")
    f.evaluates(0, a_0=1.0)
    assert f.lost("a-1") == []
    f.ready("a-1")
    lines = f.evaluates(0, a_1=0.9)
    assert lines[0] == "metrics 0 accuracy=0.95/20"
    assert lines[-1] == "Complete: TargetMetricReached at 0"


def test_the_only_learner_restarted_while_evaluating_does_not_lose_the_metrics(script: Scripts) -> None:
    f = script(learners=1)
    f.started("a-0")
    assert f.lost("a-0") == []
    f.ready("a-0")
    assert f.evaluates(0, a_0=0.5) == ["metrics 0 accuracy=0.5/10"]


def test_the_target_reached_by_the_last_version_is_the_reason(script: Scripts) -> None:
    f = script(learners=1, max_rounds=1, target=Target("accuracy", at_least=0.9))
    f.started("a-0")
    f.evaluates(0, a_0=0.5)
    f.uploads("a-0")
    f.committed(1)
    assert f.evaluates(1, a_0=0.95)[-1] == "Complete: TargetMetricReached at 1"


def test_when_the_time_is_up_the_round_is_abandoned_and_the_last_version_evaluated(script: Scripts) -> None:
    f = script(learners=2, max_rounds=9, max_duration=150.0)
    f.started("a-0", "a-1")
    f.evaluates(0, a_0=0.5, a_1=0.5)
    f.uploads("a-0", "a-1")
    f.after(50)
    f.committed(1)
    f.uploads("a-0")
    assert f.after(99) == []
    assert f.after(1) == ["a-1 discards 1", "a-0 evaluates 1", "a-1 evaluates 1"]
    assert not f.machine.expects(TaskId.parse(train_task("a-1", 1)))
    assert f.evaluates(1, a_0=0.5, a_1=0.5)[-1] == "Complete: MaxDurationReached at 1"
    assert f.end.message == "150 seconds have passed"


def test_when_the_time_is_up_and_all_is_known_it_ends_at_once(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9, max_duration=50.0)
    f.started("a-0")
    f.evaluates(0, a_0=0.5)
    assert f.after(50) == ["a-0 discards 0", "Complete: MaxDurationReached at 0"]


def test_the_time_counts_from_the_first_round_over_restarts(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9, max_duration=50.0, resumed=Resumed(version=1, started_at=960.0))
    f.ready("a-0")
    f.evaluates(1, a_0=0.5)
    assert f.after(9) == []
    assert f.after(1) == ["a-0 discards 1", "Complete: MaxDurationReached at 1"]


def test_waiting_for_learners_ends_with_the_time(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9, max_duration=50.0)
    f.started("a-0")
    f.uploads("a-0")
    f.lost("a-0")
    f.committed(1)
    assert f.after(50) == []
    assert f.machine.phase is Phase.EVALUATING
    assert f.after(DEADLINE) == ["Complete: MaxDurationReached at 1"]
    assert "no learner evaluated the last version in time" in f.end.message


def test_a_failed_aggregation_ends_it(script: Scripts) -> None:
    f = script(learners=1)
    f.started("a-0")
    f.uploads("a-0")
    assert f.do(m.AggregationFailed("sums beyond float64")) == ["Failed: AggregationFailed at 0"]
    assert f.end.message == "sums beyond float64"


# ---- the last evaluation


def last_evaluation(script: Scripts, **changes: Any) -> Any:
    f = script(learners=3, max_rounds=1, **changes)
    f.started("a-0", "a-1", "a-2")
    f.uploads("a-0", "a-1", "a-2")
    assert f.committed(1) == ["a-0 evaluates 1", "a-1 evaluates 1", "a-2 evaluates 1"]
    return f


def test_lost_evaluators_are_not_waited_for(script: Scripts) -> None:
    f = last_evaluation(script)
    f.evaluates(1, a_0=0.5)
    assert f.lost("a-1") == []
    assert f.lost("a-2") == ["metrics 1 accuracy=0.5/10", "Complete: MaxRoundsReached at 1"]


def test_evaluators_that_fail_are_not_waited_for(script: Scripts) -> None:
    f = last_evaluation(script)
    f.evaluates(1, a_0=0.5)
    f.fails("a-1")
    assert f.fails("a-2") == ["metrics 1 accuracy=0.5/10", "Complete: MaxRoundsReached at 1"]


def test_an_old_failure_does_not_excuse_an_evaluator(script: Scripts) -> None:
    f = last_evaluation(script)
    f.do(m.TaskFailed(TaskId.parse(train_task("a-2", 0))))
    assert f.evaluates(1, a_0=0.5, a_1=0.5) == []
    assert f.evaluates(1, a_2=0.5)[0] == "metrics 1 accuracy=0.5/30"


def test_slow_evaluators_have_until_the_deadline(script: Scripts) -> None:
    f = last_evaluation(script)
    f.evaluates(1, a_0=0.5, a_1=1.0)
    assert f.after(DEADLINE - 1) == []
    assert f.after(1) == ["metrics 1 accuracy=0.75/20", "Complete: MaxRoundsReached at 1"]


def test_evaluators_that_all_died_may_return(script: Scripts) -> None:
    f = last_evaluation(script)
    f.lost("a-0", "a-1", "a-2")
    assert f.ready("a-1") == ["a-1 evaluates 1"]
    assert f.evaluates(1, a_1=0.5)[-1] == "Complete: MaxRoundsReached at 1"


def test_evaluators_that_never_return(script: Scripts) -> None:
    f = last_evaluation(script)
    f.lost("a-0", "a-1", "a-2")
    assert f.after(DEADLINE) == ["Complete: MaxRoundsReached at 1"]
    assert f.end.message.endswith("no learner evaluated the last version in time")


def test_a_second_report_replaces_the_first(script: Scripts) -> None:
    f = last_evaluation(script)
    f.evaluates(1, a_0=0.1)
    f.evaluates(1, a_0=0.7, a_1=0.7)
    assert f.evaluates(1, a_2=0.7)[0] == "metrics 1 accuracy=0.7/30"


def test_reports_of_other_versions_are_not_counted(script: Scripts) -> None:
    f = last_evaluation(script)
    assert f.evaluates(0, a_0=0.1, a_1=0.1, a_2=0.1) == []
    assert f.evaluates(2, a_0=0.1, a_1=0.1, a_2=0.1) == []
    assert f.evaluates(1, a_0=0.7, a_1=0.7, a_2=0.7)[0] == "metrics 1 accuracy=0.7/30"


def test_learners_without_examples_have_no_say(script: Scripts) -> None:
    f = last_evaluation(script)
    f.do(m.Evaluated("a-0", 1, Report(0, {"accuracy": 0.0})))
    f.do(m.Evaluated("a-1", 1, Report(30, {"accuracy": 0.5})))
    lines = f.do(m.Evaluated("a-2", 1, Report(10, {"accuracy": 1.0})))
    assert lines == ["metrics 1 accuracy=0.625/40", "Complete: MaxRoundsReached at 1"]


def test_no_examples_at_all_means_no_metrics(script: Scripts) -> None:
    f = script(learners=1, max_rounds=1)
    f.started("a-0")
    f.uploads("a-0")
    f.committed(1)
    assert f.do(m.Evaluated("a-0", 1, Report(0, {"accuracy": 0.0}))) == ["Complete: MaxRoundsReached at 1"]
