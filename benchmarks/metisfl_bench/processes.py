"""The processes of a benchmark: the real controller, and the loads. All of them end with the context they belong to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 120.0
STOP_SECONDS = 20.0
REST_SECONDS = 60.0

# As every process of this project sets them for itself.
_CALM = {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


class BenchError(RuntimeError):
    """A benchmark that could not be run; the message says why."""


@dataclass
class Process:
    """A child with its standard error in a file, to be shown when it fails."""

    popen: subprocess.Popen[str]
    errors: Path

    def check(self) -> None:
        """Raises BenchError when it has ended badly."""
        code = self.popen.poll()
        if code not in (None, 0):
            raise BenchError(f"{self.popen.args!r} ended with status {code}:\n{self.tail()}")

    def wait(self, seconds: float) -> None:
        """Raises BenchError unless it ends well in time."""
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.popen.args!r} did not end within {seconds:g} s:\n{self.tail()}") from None
        self.check()

    def tail(self) -> str:
        return self.errors.read_text(errors="replace")[-2000:]


@contextlib.contextmanager
def process(
    arguments: Sequence[str],
    directory: Path,
    *,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    cgroup: Path | None = None,
) -> Iterator[Process]:
    """`python` with `arguments`, until the end of the block, behind a `prefix` and in a `cgroup`."""
    errors = directory / f"stderr-{len(list(directory.glob('stderr-*')))}"
    with errors.open("w") as stderr:
        popen = subprocess.Popen(
            [*prefix, sys.executable, *arguments],
            env={**os.environ, **_CALM, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=(lambda: _enter(cgroup)) if cgroup else None,
        )
    try:
        yield Process(popen, errors)
    finally:
        if popen.poll() is None:
            popen.send_signal(signal.SIGTERM)
            try:
                popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()
        if popen.stdout:
            popen.stdout.close()


def _enter(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))


@dataclass(frozen=True)
class Setup:
    """How the controller of a benchmark is run."""

    learners: int
    rounds: int
    codec: str = "Float32"
    compression: str = "None"
    memory_budget: str | None = None
    threads: int | None = None
    checkpoint: bool = False
    group: str = "load"
    min_learners: int | None = None
    tls: bool = False
    """Mutual TLS; `environment` then says where the controller's certificates are."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def federation(self) -> dict[str, Any]:
        controller = {"memoryBudget": self.memory_budget, "threads": self.threads}
        transport: dict[str, Any] = {"codec": self.codec}
        if self.compression != "None":
            transport["compression"] = {"type": self.compression}
        return {
            "apiVersion": "metisfl.dev/v1alpha1",
            "kind": "Federation",
            "metadata": {"name": "bench"},
            "spec": {
                "learner": {"entrypoint": "metisfl_bench.load:LoadLearner"},
                # Training only: what is not asked for is no part of the round.
                "evaluation": {"everyRounds": 1_000_000},
                "protocol": {"type": "Synchronous", "synchronous": {"roundDeadlineSeconds": 7200}},
                "selection": {"minLearners": self.min_learners or self.learners},
                "transport": transport,
                "security": {"tls": {"mode": "Auto" if self.tls else "Disabled"}},
                "termination": {"maxRounds": self.rounds},
                "learnerGroups": [{"name": self.group, "replicas": self.learners}],
                "controller": {name: value for name, value in controller.items() if value is not None},
            },
        }


@dataclass
class Controller:
    """A controller that serves."""

    process: Process
    grpc: str
    rest: httpx.Client
    """Of the REST side; one for all requests, as making one would disturb what is measured."""

    def get(self, path: str) -> Any:
        """A document of the REST side. Raises BenchError."""
        return self._answer(path).json()

    def rounds(self) -> list[dict[str, Any]]:
        """All committed rounds, oldest first. Raises BenchError."""
        found: list[dict[str, Any]] = []
        while page := self.get(f"/v1/rounds?limit=1000&after={found[-1]['number'] if found else 0}"):
            found += page
        return found

    def metric(self, name: str, **labels: str) -> float:
        """A value of /metrics; 0 when it is not there yet. Raises BenchError."""
        text = self._answer("/metrics").text
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in text.splitlines():
            series, _, value = line.rpartition(" ")
            if series.startswith(f"{name}{{") and all(each in series for each in wanted):
                return float(value)
        return 0.0

    def memory(self, what: str) -> int:
        """`VmRSS`, `VmHWM` or `RssAnon`, in bytes."""
        self.process.check()
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
        raise BenchError(f"the kernel does not tell {what}")

    def _answer(self, path: str) -> httpx.Response:
        self.process.check()
        try:
            return self.rest.get(path).raise_for_status()
        except httpx.HTTPError as error:
            raise BenchError(f"the controller does not answer {path}: {error}") from error

    @property
    def _pid(self) -> int:
        """`ip netns exec` replaces itself by its command, so the child's id is the controller's."""
        return self.process.popen.pid


@contextlib.contextmanager
def controller(
    setup: Setup,
    directory: Path,
    *,
    host: str = "127.0.0.1",
    prefix: Sequence[str] = (),
    cgroup: Path | None = None,
) -> Iterator[Controller]:
    """The real controller process on a Federation of its own."""
    endpoint, federation = directory / "endpoint.json", directory / "federation.json"
    federation.write_text(json.dumps(setup.federation()))
    environment = {
        "METISFL_FEDERATION_FILE": str(federation),
        "METISFL_STATE_DIR": str(directory / "state"),
        "METISFL_GRPC_ADDRESS": f"{host}:0",
        "METISFL_HTTP_ADDRESS": f"{host}:0",
        "METISFL_ENDPOINT_FILE": str(endpoint),
        "METISFL_CHECKPOINTS": "true" if setup.checkpoint else "false",
        "METISFL_LEASE_SECONDS": "7200",
        "METISFL_LOG_LEVEL": "WARNING",
        "METISFL_LOG_FORMAT": "text",
        **setup.environment,
    }
    arguments = ["-m", "metisfl_controller"]
    with process(arguments, directory, environment=environment, prefix=prefix, cgroup=cgroup) as running:
        deadline = time.monotonic() + START_SECONDS
        while not endpoint.exists():
            running.check()
            if time.monotonic() > deadline:
                raise BenchError(f"the controller did not start within {START_SECONDS:g} s:\n{running.tail()}")
            time.sleep(0.05)
        addresses = json.loads(endpoint.read_text())
        with httpx.Client(base_url=f"http://{addresses['http']}", timeout=REST_SECONDS) as rest:
            yield Controller(running, addresses["grpc"], rest)
