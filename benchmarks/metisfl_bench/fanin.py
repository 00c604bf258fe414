"""`metisfl bench fanin`: very many learners, each with a connection of its own.

First a controller has rounds of some of them, whose time is compared with a bare loop of the same calls: the same load
processes, against a server that does nothing (`metisfl_bench.bare`). Then as many as asked for connect to another
controller and are idle, and its memory is read; all of them take part in a round, and it is read again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metisfl_bench.bare import Bare
from metisfl_bench.layouts import LAYOUTS
from metisfl_bench.load import Load
from metisfl_bench.processes import BenchError, Controller, Process, Setup, controller, process
from metisfl_bench.rounds import cycles

POLL_SECONDS = 0.5

SPARE_FILES = 1000
"""Files a process has open besides its connections; far fewer, in truth."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class FanInBench:
    """`learners` connect; `participants` of them make the timed rounds, `rounds` after one that warms up."""

    learners: int = 10_000
    participants: int = 1_000
    parameters: int = 10_000
    layout: str = "uniform16"
    rounds: int = 5
    codec: str = "Float32"
    load_processes: int = 4
    timeout_seconds: float = 1800.0


def run(bench: FanInBench, tell: Progress) -> dict[str, Any]:
    """Run it and return the figures. Raises BenchError."""
    if bench.learners < 2:
        raise BenchError("fan-in takes two learners or more: the last one starts the round")
    layout = LAYOUTS[bench.layout](bench.parameters)
    with tempfile.TemporaryDirectory(prefix="metisfl-bench-") as name, open_files(bench.learners + SPARE_FILES):
        seconds = _rounds(bench, _folder(name, "rounds"), tell)
        bare = _bare(bench, _folder(name, "bare"), tell)
        # Last, when the kernels lie compiled: what a compiler leaves behind would be room for connections.
        memory = _memory(bench, _folder(name, "memory"), tell)
    median, bare_median = statistics.median(seconds), statistics.median(bare)
    return {
        **{name: value for name, value in asdict(bench).items() if name != "timeout_seconds"},
        "parameters": layout.parameters,
        "model_bytes": layout.nbytes,
        **memory,
        "round_seconds_median": median,
        "round_seconds": seconds,
        "bare_seconds_median": bare_median,
        "bare_seconds": bare,
        "fraction_of_bare": bare_median / median,
        "round_seconds_per_learner": median / bench.participants,
    }


def _memory(bench: FanInBench, directory: Path, tell: Progress) -> dict[str, Any]:
    """The controller's resident memory: alone, with all learners idle, and after a round of all of them."""
    # A second round is opened and never done, so that the learners stay connected.
    setup = Setup(learners=bench.learners, rounds=2, codec=bench.codec)
    deadline = time.monotonic() + bench.timeout_seconds
    with contextlib.ExitStack() as stack:
        tell("starting the controller")
        running = stack.enter_context(controller(setup, directory))
        alone = running.memory("VmRSS")

        def start(first: int, count: int) -> Process:
            return stack.enter_context(_load(bench, running.grpc, directory, first, count, last_round=1))

        # One is kept back: when it comes, the round begins.
        idle = bench.learners - 1
        started = time.monotonic()
        loads = [start(first, count) for first, count in shares(idle, bench.load_processes)]
        _until(running, loads, deadline, tell, "connected", "metisfl_learners", idle, state="connected")
        connecting = time.monotonic() - started
        idle_memory = running.memory("VmRSS")
        loads.append(start(idle, 1))
        _until(running, loads, deadline, tell, "rounds committed", "metisfl_rounds_committed_total", 1)
        after = running.memory("VmRSS")
        return {
            "connections": bench.learners,
            "connect_seconds": connecting,
            "controller_rss_mb_alone": alone / 1e6,
            "controller_rss_mb_idle": idle_memory / 1e6,
            "controller_rss_mb_after_round": after / 1e6,
            "bytes_per_connection_idle": (idle_memory - alone) / idle,
            "bytes_per_connection_after_round": (after - alone) / bench.learners,
            "round_of_all_seconds": cycles(running.rounds())[0],
        }


def _rounds(bench: FanInBench, directory: Path, tell: Progress) -> list[float]:
    """Seconds of every timed round of the participants."""
    setup = Setup(learners=bench.participants, rounds=bench.rounds + 1, codec=bench.codec)
    tell(f"rounds of {bench.participants} learners")
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(controller(setup, directory))
        loads = [
            stack.enter_context(_load(bench, running.grpc, directory, first, count))
            for first, count in shares(bench.participants, bench.load_processes)
        ]
        _ended(loads, bench.timeout_seconds)
        documents = running.rounds()
    if len(documents) != setup.rounds:
        raise BenchError(f"{len(documents)} of {setup.rounds} rounds were committed")
    return cycles(documents)[1:]


def _bare(bench: FanInBench, directory: Path, tell: Progress) -> list[float]:
    """Seconds of the same rounds against a server that does nothing."""
    bare = Bare(bench.participants, bench.rounds + 1, bench.layout, bench.parameters, bench.codec)
    tell("the same calls, bare")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(process(["-m", "metisfl_bench.bare", bare.to_json()], directory))
        assert server.popen.stdout
        port = server.popen.stdout.readline().strip()
        if not port:
            raise BenchError(f"the bare server did not start:\n{server.tail()}")
        loads = [
            stack.enter_context(_load(bench, f"127.0.0.1:{port}", directory, first, count))
            for first, count in shares(bench.participants, bench.load_processes)
        ]
        _ended(loads, bench.timeout_seconds)
        seconds: list[float] = json.loads(server.popen.stdout.readline())
        return seconds[1:]


def _load(
    bench: FanInBench, address: str, directory: Path, first: int, count: int, last_round: int | None = None
) -> contextlib.AbstractContextManager[Process]:
    load = Load(address, first, count, bench.layout, bench.parameters, shared_connection=False, last_round=last_round)
    return process(["-m", "metisfl_bench.load", load.to_json()], directory)


def shares(learners: int, processes: int) -> list[tuple[int, int]]:
    """First learner and number of learners of each load process."""
    borders = [learners * number // processes for number in range(processes + 1)]
    return [(first, stop - first) for first, stop in itertools.pairwise(borders) if stop > first]


def _until(
    running: Controller,
    loads: list[Process],
    deadline: float,
    tell: Progress,
    what: str,
    metric: str,
    wanted: int,
    **labels: str,
) -> None:
    """Until a metric of the controller has come so far. It is asked for its metrics only: the documents on its REST
    side list all learners, and would be measured with them."""
    told = -1
    while (value := int(running.metric(metric, **labels))) < wanted:
        for load in loads:
            load.check()
        if value != told:
            tell(f"{value} of {wanted} {what}")
            told = value
        if time.monotonic() > deadline:
            raise BenchError(f"only {value} of {wanted} {what} in time")
        time.sleep(POLL_SECONDS)


def _ended(loads: list[Process], seconds: float) -> None:
    """Until all loads have been told to stop, and none has failed. Raises BenchError."""
    deadline = time.monotonic() + seconds
    for load in loads:
        while load.popen.poll() is None:
            # One that fails leaves the others waiting for a round that cannot end.
            for each in loads:
                each.check()
            if time.monotonic() > deadline:
                raise BenchError(f"the rounds took longer than {seconds:g} s:\n{load.tail()}")
            time.sleep(POLL_SECONDS)
        load.check()


@contextlib.contextmanager
def open_files(wanted: int) -> Iterator[None]:
    """As many open files as connections need, for the processes started meanwhile. Raises BenchError."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = before
    unlimited = resource.RLIM_INFINITY
    try:
        if soft != unlimited and soft < wanted:
            hard = hard if hard == unlimited or hard >= wanted else wanted
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        raise BenchError(
            f"{wanted} open files are needed and {before[1]} are allowed: raise the hard limit (ulimit -Hn), or take "
            "fewer --learners"
        ) from error
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _folder(name: str, part: str) -> Path:
    folder = Path(name) / part
    folder.mkdir()
    return folder
