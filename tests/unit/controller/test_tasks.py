"""Task ids as text."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metisfl_controller.rounds.tasks import Kind, TaskId, incarnation

IDS = st.builds(
    TaskId,
    federation=st.uuids().map(str),
    incarnation=st.builds(incarnation, st.integers(1, 10**6), st.floats(0, 9e9)),
    kind=st.sampled_from(Kind),
    base_version=st.integers(0, 2**63),
    learner=st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?-[0-9]{1,4}", fullmatch=True),
    attempt=st.integers(1, 3),
)


@given(IDS)
def test_an_id_survives_text(task: TaskId) -> None:
    assert TaskId.parse(str(task)) == task


@given(st.integers(0, 10**6), st.floats(1.7e9, 9e9), st.floats(1.7e9, 9e9))
def test_incarnations_grow_with_each_start_and_no_backup_gives_one_again(
    starts: int, before: float, now: float
) -> None:
    assert incarnation(starts, before) < incarnation(starts + 1, now)
    assume(abs(before - now) > 0.002)
    assert incarnation(starts, before) != incarnation(starts, now)


@given(st.text(max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    with suppress(ValueError):
        assert str(TaskId.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "u/1/train/0/a-0",
        "u/1/train/0/a-0/1/",
        "u/x/train/0/a-0/1",
        "u/1/juggle/0/a-0/1",
        # Python reads these as numbers; they would be second names of one task.
        "u/+1/train/0/a-0/1",
        "u/1/train/0_0/a-0/1",
        "u/1/train/00/a-0/1",
        "u/1/train/ 0/a-0/1",
        "u/1/train/٠/a-0/1",
        "u/" + "1" * 5000 + "/train/0/a-0/1",
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - int's own words are as good
        TaskId.parse(text)
