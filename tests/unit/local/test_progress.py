"""What is shown while a run goes on."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from datetime import timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from metisfl.api import FederationDocument, FederationState
from metisfl.local.progress.display import Snapshot
from metisfl.local.progress.estimate import time_left
from metisfl.local.progress.live import LiveDisplay, frame
from metisfl.local.progress.plain import PlainDisplay, QuietDisplay
from metisfl.local.progress.trends import sparkline, trends
from metisfl.local.progress.words import duration, goal, number, shape, size
from metisfl.spec import Federation, parse_federation
from tests.unit.local.samples import START, YAML, federation_document, learner, round_document, rounds


def federation() -> Federation:
    return parse_federation(yaml.safe_load(YAML))


def snapshot(count: int, state: FederationState = FederationState.TRAINING, **changes: object) -> Snapshot:
    done = rounds(count)
    document = federation_document(done, state).model_copy(update=changes)
    return Snapshot(document, done, {"silo-a-0": 2}, START + timedelta(seconds=2 * count))


def text_of(shown: Snapshot, width: int = 100, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(frame(federation(), shown, height))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.04, "0 s"),
        (0.42, "0.4 s"),
        (28.4, "28 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (-3, "0 s"),
    ],
)
def test_durations_as_people_say_them(seconds: float, expected: str) -> None:
    assert duration(timedelta(seconds=seconds)) == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_as_people_say_them(count: int, expected: str) -> None:
    assert size(count) == expected


@pytest.mark.parametrize(
    ("transport", "said"),
    [
        ({}, ""),
        ({"codec": "Int8", "compression": {"type": "Zstd"}}, ", Int8 with Zstd"),
        ({"codec": "TopK", "topK": {"fraction": "0.05"}}, ", TopK of 0.05"),
        ({"compression": {"type": "Zstd"}}, ", Float32 with Zstd"),
    ],
)
def test_the_shape_names_how_models_travel(transport: dict[str, object], said: str) -> None:
    document = yaml.safe_load(YAML)
    document["spec"]["transport"] = transport
    expected = f"4 learners in 2 groups, Synchronous, FedAvg{said}"
    assert shape(parse_federation(document)) == expected


def test_the_goal_names_every_limit() -> None:
    assert goal(federation()) == "at most 20 rounds, until accuracy ≥ 0.97"


def test_time_left_is_the_pace_of_recent_rounds_times_those_still_allowed() -> None:
    shown = snapshot(5)
    assert time_left(shown.document, shown.rounds, None, shown.now) == timedelta(seconds=30)


def test_time_left_never_exceeds_the_time_allowed() -> None:
    shown = snapshot(5)
    assert time_left(shown.document, shown.rounds, 12, shown.now) == timedelta(seconds=2)
    assert time_left(shown.document, shown.rounds, 5, shown.now) == timedelta()


def test_time_left_is_unknown_before_the_first_round() -> None:
    shown = snapshot(0)
    assert time_left(shown.document, [], None, shown.now) is None


def test_trends_hold_every_metric_oldest_first() -> None:
    done = [
        round_document(1, {"accuracy": 0.5}, {"train_loss": 2.0}),
        round_document(2, {"accuracy": 0.75}, {"train_loss": 1.0}),
        round_document(3, {}, {"train_loss": 0.5}),
    ]
    assert trends(federation_document(done), done) == {
        "training loss": [2.0, 1.0, 0.5],
        "accuracy": [0.5, 0.75],
    }


def test_a_sparkline_rises_with_its_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([3, 3], 8) == "▅▅"
    assert sparkline([0, math.nan, 1], 8) == "▁ █"
    assert sparkline([1.7e308, -1.7e308], 8) == "█▁"


@given(st.lists(st.floats(), max_size=40), st.integers(min_value=1, max_value=30))
def test_a_sparkline_fits_and_orders_like_its_values(values: list[float], width: int) -> None:
    bars = sparkline(values, width)
    shown = values[-width:]
    assert len(bars) == len(shown)
    ordered = [bar for _, bar in sorted((v, b) for v, b in zip(shown, bars, strict=True) if math.isfinite(v))]
    assert ordered == sorted(ordered)


def test_the_frame_shows_rounds_learners_metrics_and_bytes() -> None:
    text = text_of(snapshot(5))
    for part in (
        "digits",
        "until accuracy ≥ 0.97",
        "5/20 rounds",
        "at most 30 s left",
        "silo-b-1",
        "359 + 90 held out",
    ):
        assert part in text
    assert f"accuracy  {' ' * 5}{number(1 - 0.6 / 5.5)}" in text
    assert "sent 708.0 KiB, received 703.1 KiB" in text


def test_the_frame_fits_the_terminal_and_shows_who_is_in_trouble() -> None:
    many = [learner(f"silo-a-{n}", "Training", progress=0.5) for n in range(200)]
    many[150] = learner("silo-a-150", "Lost", "its lease ended")
    text = text_of(snapshot(5, learners=many), height=24)
    assert len(text.splitlines()) <= 24
    assert "its lease ended" in text
    assert "more: " in text
    assert "training" in text


def test_learners_that_left_a_complete_federation_are_not_shown_as_lost() -> None:
    left = [learner("silo-a-0", "Left")]
    text = text_of(snapshot(5, FederationState.COMPLETE, learners=left))
    assert "Lost" not in text
    assert "Left" in text


def lines_of(display: PlainDisplay | QuietDisplay | LiveDisplay, console: Console, shown: list[Snapshot]) -> list[str]:
    display.open(federation(), "out")
    for entry in shown:
        display.update(entry)
    display.note("silo-a-0 started again as process 7")
    display.close()
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def test_plain_progress_has_one_line_for_each_round() -> None:
    console = Console(file=io.StringIO(), width=40)
    waiting = snapshot(0, FederationState.WAITING_FOR_LEARNERS)
    lines = lines_of(PlainDisplay(console), console, [waiting, waiting, snapshot(1), snapshot(3), snapshot(3)])
    assert lines[2:5] == [
        "waiting for 4 learners",
        "training",
        "round 1/20: 4 of 4 learners in 2.0 s, training loss 1.75, accuracy 0.6, loss 1.98, at most 38 s left",
    ]
    assert [line.partition(":")[0] for line in lines if line.startswith("round")] == [
        "round 1/20",
        "round 2/20",
        "round 3/20",
    ]
    assert lines[-1] == "silo-a-0 started again as process 7"


def test_plain_progress_tells_what_happened_in_its_order_however_quick_the_rounds_were() -> None:
    console = Console(file=io.StringIO(), width=40)
    shown = [snapshot(0, FederationState.INITIALISING), snapshot(2, FederationState.COMPLETE)]
    words = [line.split(" ")[0] for line in lines_of(PlainDisplay(console), console, shown)[2:-1]]
    assert words == ["fetching", "training", "round", "round"]


def test_plain_progress_tells_once_what_is_odd_while_rounds_go_on() -> None:
    console = Console(file=io.StringIO(), width=40)
    shown = [snapshot(1), snapshot(2, message="nobody reports f1"), snapshot(3, message="nobody reports f1")]
    lines = lines_of(PlainDisplay(console), console, shown)
    assert [line for line in lines if "f1" in line] == ["training (nobody reports f1)"]


def test_a_round_whose_version_is_not_evaluated_yet_shows_the_newest_values_with_their_version() -> None:
    console = Console(file=io.StringIO(), width=40)
    first = snapshot(1)
    fresh = round_document(2, {}, {})
    document: FederationDocument = first.document.model_copy(update={"committed_rounds": 2})
    lines = lines_of(
        PlainDisplay(console), console, [first, replace(first, document=document, rounds=[*first.rounds, fresh])]
    )
    assert any("round 2/20" in line and "version 1: accuracy 0.6" in line for line in lines)


def test_quiet_progress_still_tells_of_restarts() -> None:
    console = Console(file=io.StringIO(), width=40)
    assert lines_of(QuietDisplay(console), console, [snapshot(3)]) == ["silo-a-0 started again as process 7"]


def test_the_live_display_can_be_closed_twice_and_before_it_was_opened() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
    display = LiveDisplay(console)
    display.close()
    lines = lines_of(display, console, [snapshot(3)])
    display.close()
    assert any("started again" in line for line in lines)
