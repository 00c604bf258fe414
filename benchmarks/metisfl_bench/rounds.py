"""`metisfl bench round`: whole rounds of a real controller, with learners that do no training."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from metisfl.wire.codecs import Codec, Encoding
from metisfl_bench import stream
from metisfl_bench.certificates import UID, prepared
from metisfl_bench.isolation import memory_cgroup, network
from metisfl_bench.layouts import LAYOUTS
from metisfl_bench.load import GROUP, Load
from metisfl_bench.processes import BenchError, Controller, Process, Setup, controller, process

POLL_SECONDS = 1.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class RoundBench:
    """What is measured. `rounds` are counted after one that warms up."""

    learners: int
    parameters: int
    layout: str = "uniform16"
    rounds: int = 10
    codec: str = "Float32"
    compression: str = "None"
    shared_connection: bool = True
    process_per_learner: bool = False
    checkpoint: bool = False
    memory_budget: str | None = None
    memory_limit: int | None = None
    shaped: str | None = None
    tls: bool = False
    """Mutual TLS, which gives each learner a connection of its own, against the same rounds in clear text."""
    bare_stream: bool = True
    timeout_seconds: float = 3600.0


def run(bench: RoundBench, tell: Progress) -> dict[str, Any]:
    """Run it and return the figures. Raises BenchError."""
    layout = LAYOUTS[bench.layout](bench.parameters)
    with tempfile.TemporaryDirectory(prefix="metisfl-bench-") as name:
        directory = Path(name)
        clear = _clear_text(bench, directory, tell) if bench.tls else {}
        measured = _rounds(bench, directory, tell)
        timed = cycles(measured.documents)[1:]
        seconds = statistics.median(timed)
        last = measured.documents[-1]
        bytes_moved = last["bytesSent"] + last["bytesReceived"]
        result: dict[str, Any] = {
            **{name: value for name, value in asdict(bench).items() if name != "timeout_seconds"},
            "parameters": layout.parameters,
            "model_bytes": layout.nbytes,
            "round_seconds_median": seconds,
            "round_seconds_min": min(timed),
            "round_seconds": timed,
            "phase_seconds": _phases(measured.documents[1:]),
            "kernel_seconds_mean": measured.kernel_seconds / len(measured.documents),
            "bytes_moved": bytes_moved,
            "bytes_per_second": bytes_moved / seconds,
            "controller_peak_rss_mb": measured.peak_bytes / 1e6,
            "controller_anonymous_mb": measured.anonymous_bytes / 1e6,
            "state": measured.state,
        }
        if clear:
            result |= {**clear, "tls_ratio": seconds / clear["clear_text_seconds_median"]}
        if bench.bare_stream and bench.shaped is None:
            tell("measuring the bare stream")
            nbytes = Encoding(layout, Codec(bench.codec)).nbytes
            streams = stream.Streams(bench.learners, nbytes, bench.rounds + 1, bench.shared_connection)
            bare = stream.bytes_per_second(streams, stream.measure(streams, directory, bench.timeout_seconds))
            result |= {"stream_bytes_per_second": bare, "fraction_of_stream": bytes_moved / seconds / bare}
        return result


def _clear_text(bench: RoundBench, directory: Path, tell: Progress) -> dict[str, float]:
    place = directory / "clear"
    place.mkdir()
    tell("measuring without TLS")
    timed = cycles(_rounds(replace(bench, tls=False, shared_connection=False), place, tell).documents)[1:]
    return {"clear_text_seconds_median": statistics.median(timed), "clear_text_seconds_min": min(timed)}


@dataclass(frozen=True)
class _Measured:
    """What the controller and the system told. `kernel_seconds`: of all rounds together; `anonymous_bytes`: the most
    that was seen when looking now and then, as the system keeps no peak of it."""

    documents: list[dict[str, Any]]
    kernel_seconds: float
    peak_bytes: int
    anonymous_bytes: int
    state: str


def _rounds(bench: RoundBench, directory: Path, tell: Progress) -> _Measured:
    certificates = prepared(directory, GROUP) if bench.tls else None
    setup = Setup(
        learners=bench.learners,
        rounds=bench.rounds + 1,
        codec=bench.codec,
        compression=bench.compression,
        memory_budget=bench.memory_budget,
        checkpoint=bench.checkpoint,
        tls=bench.tls,
        environment={"METISFL_TLS_DIR": str(certificates.controller), "METISFL_FEDERATION_UID": UID}
        if certificates
        else {},
    )
    tls_dir = str(certificates.learners(GROUP)) if certificates else None
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(network(bench.shaped))
        cgroup = stack.enter_context(memory_cgroup(bench.memory_limit))
        tell("starting the controller")
        running = stack.enter_context(controller(setup, directory, host=place.host, prefix=place.prefix, cgroup=cgroup))
        tell("starting the load")
        loads = [
            stack.enter_context(process(["-m", "metisfl_bench.load", load.to_json()], directory))
            for load in _loads(bench, running.grpc, tls_dir)
        ]
        anonymous = _wait(bench, running, loads, tell)
        documents = running.rounds()
        state = running.get("/v1/federation")["state"]
        if len(documents) != setup.rounds:
            raise BenchError(f"{len(documents)} of {setup.rounds} rounds were committed; the federation is {state}")
        kernel_seconds = running.metric("metisfl_aggregation_seconds_sum")
        return _Measured(documents, kernel_seconds, running.memory("VmHWM"), anonymous, state)


def _loads(bench: RoundBench, address: str, tls_dir: str | None) -> list[Load]:
    shared = bench.shared_connection and tls_dir is None

    def load(first: int, count: int) -> Load:
        return Load(address, first, count, bench.layout, bench.parameters, shared, tls_dir=tls_dir)

    if bench.process_per_learner:
        return [load(number, 1) for number in range(bench.learners)]
    return [load(0, bench.learners)]


def _wait(bench: RoundBench, running: Controller, loads: list[Process], tell: Progress) -> int:
    """Until all rounds are done and the loads have ended. Returns the most anonymous memory that was seen."""
    deadline, told, anonymous = time.monotonic() + bench.timeout_seconds, -1, running.memory("RssAnon")
    while any(load.popen.poll() is None for load in loads):
        for load in loads:
            load.check()
        if time.monotonic() > deadline:
            raise BenchError(f"the rounds took longer than {bench.timeout_seconds:g} s")
        committed = running.get("/v1/federation")["committedRounds"]
        if committed != told:
            tell(f"round {committed} of {bench.rounds + 1}")
            told = committed
        with contextlib.suppress(BenchError):
            loads[0].wait(POLL_SECONDS)
        anonymous = max(anonymous, running.memory("RssAnon"))
    for load in loads:
        load.check()
    return anonymous


def cycles(documents: list[dict[str, Any]]) -> list[float]:
    """Seconds from the start of each round to the start of the next, so with everything between two rounds; the last
    one ends with its commit."""
    starts = [datetime.fromisoformat(document["startedAt"]) for document in documents]
    starts.append(datetime.fromisoformat(documents[-1]["endedAt"]))
    return [(after - before).total_seconds() for before, after in itertools.pairwise(starts)]


def _phases(documents: list[dict[str, Any]]) -> dict[str, float]:
    """Medians of what the controller tells of each round."""
    names = documents[-1]["phaseSeconds"]
    return {name: statistics.median(document["phaseSeconds"][name] for document in documents) for name in names}
