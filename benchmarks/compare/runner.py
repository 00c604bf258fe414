"""Runs the plan: each size with one system after the other, so that what the machine does else is shared fairly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare.children import CompareError
from benchmarks.compare.environments import measure, python_of, versions
from benchmarks.compare.plan import AGGREGATIONS, ROUNDS, SYSTEMS, Setup
from benchmarks.compare.results import Results
from benchmarks.compare.work import Work
from metisfl_bench.machine import machine

PACKAGES = {
    "metisfl": ("metisfl-operator", "grpcio", "numba", "numpy"),
    "flower": ("flwr", "numpy"),
    "nvflare": ("nvflare", "grpcio", "numpy"),
}


class Comparison:
    """Raises CompareError when a system cannot be installed, or was given other arrays than the rest. Whatever cannot
    be measured at one size is written down as skipped, with the reason."""

    def __init__(self, systems: Sequence[str], command: str, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._command = command
        self._pythons = {system: python_of(system, tell) for system in systems}

    def aggregate(self, works: Sequence[Work], path: Path) -> Results:
        results = self._run("aggregate", AGGREGATIONS, works, path)
        for work in works:
            inputs = {result["inputs_crc32"] for result in results.results if _is_of(result, work)}
            if len(inputs) > 1:
                raise CompareError(f"the systems were not given the same arrays at {work.name}, {work.layout}")
        return results

    def round(self, works: Sequence[Work], path: Path) -> Results:
        return self._run("round", ROUNDS, works, path)

    def _run(self, mode: str, setups: Sequence[Setup], works: Sequence[Work], path: Path) -> Results:
        found = {system: versions(python, *PACKAGES[system]) for system, python in self._pythons.items()}
        about = machine()
        results = Results(f"compare-{mode}", self._command, {k: v for k, v in about.items() if k != "versions"}, found)
        for work in works:
            for setup in setups:
                if setup.system in self._pythons:
                    self._one(mode, setup, work, results)
            results.write(path)
        self._tell(f"wrote {path.name}")
        return results

    def _one(self, mode: str, setup: Setup, work: Work, results: Results) -> None:
        what = ", ".join(filter(None, [f"{mode} {work.name}", work.layout, SYSTEMS[setup.system], setup.words]))
        self._tell(what)
        about: dict[str, Any] = {
            "system": setup.system,
            "setup": setup.words,
            "learners": work.learners,
            "parameters": work.parameters,
            "layout": work.layout,
            "model_bytes": work.model_bytes,
        }
        try:
            measured = measure(self._pythons[setup.system], mode, setup, work)
        except CompareError as error:
            self._tell(f"  skipped: {error}")
            results.skipped.append({**about, "reason": str(error)})
            return
        for result in measured:
            results.results.append({**about, "repetitions": len(result["seconds"]), **result})
            self._tell(f"  {result.get('path', setup.words)}: median {result['seconds_median']:.4g} s")


def _is_of(result: dict[str, Any], work: Work) -> bool:
    return all(result[name] == getattr(work, name) for name in ("learners", "parameters", "layout"))
