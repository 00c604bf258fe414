"""How fan-in divides its learners over processes, and how many files it asks for."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl_bench.fanin import open_files, shares
from metisfl_bench.processes import BenchError


@given(learners=st.integers(1, 10_000), processes=st.integers(1, 100))
def test_every_learner_has_one_process(learners: int, processes: int) -> None:
    found = shares(learners, processes)
    assert [ordinal for first, count in found for ordinal in range(first, first + count)] == list(range(learners))
    assert len(found) == min(learners, processes)
    counts = [count for _, count in found]
    assert max(counts) - min(counts) <= 1


@pytest.fixture
def few_files() -> Iterator[int]:
    """A low limit on open files, and what it is."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    yield 512
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_files_are_asked_for_and_given_back(few_files: int) -> None:
    for wanted, allowed in ((few_files + 1, few_files + 1), (few_files - 1, few_files)):
        with open_files(wanted):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == allowed
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == few_files


def test_more_files_than_the_kernel_allows(few_files: int) -> None:
    with (
        pytest.raises(BenchError, match=r"1099511627776 open files are needed .* raise the hard limit"),
        open_files(1 << 40),
    ):
        pass
