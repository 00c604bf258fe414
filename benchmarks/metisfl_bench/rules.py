"""`metisfl bench rules`: what each aggregation rule costs, beside FedAvg in the same run.

All uploads are whole float32 models in memory, and are aggregated at once, as at the end of a round in which nothing
was folded before. Repetitions go round and round the rules, so that a machine that gets slower is slower for all.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metisfl.spec.aggregation import AggregationRule, AggregationSpec
from metisfl.spec.robust import BulyanSpec, KrumSpec, MultiKrumSpec
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl_bench.aggregate import models_of
from metisfl_bench.layouts import LAYOUTS
from metisfl_bench.processes import BenchError
from metisfl_controller.aggregation.choice import kernels_of, rule_of
from metisfl_controller.aggregation.kernels import runtime
from metisfl_controller.aggregation.rule import Rule, Staged
from metisfl_controller.cpus import available_cpus

RULES = tuple(rule for rule in AggregationRule if rule is not AggregationRule.SCAFFOLD)
"""Scaffold is FedAvg of uploads that have two sections."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class RulesBench:
    learners: int
    parameters: int
    layout: str = "uniform16"
    rounds: int = 5
    rules: Sequence[AggregationRule] = RULES
    threads: int | None = None

    @property
    def byzantine(self) -> int:
        """As many attackers as all rules withstand."""
        return (self.learners - 3) // 4


def run(bench: RulesBench, tell: Progress) -> dict[str, Any]:
    """Run it and return the figures. Raises BenchError for too few learners."""
    if bench.learners < 3:
        raise BenchError("Krum and Bulyan need at least three learners")
    layout = LAYOUTS[bench.layout](bench.parameters)
    encoding = Encoding(layout, Codec.FLOAT32)
    chosen = [rule for rule in RULES if rule in bench.rules or rule is AggregationRule.FED_AVG]
    specs = {rule: _spec(rule, bench.byzantine) for rule in chosen}
    threads = min(bench.threads or available_cpus(), available_cpus())
    tell("compiling the kernels")
    runtime.configure(threads, [kernels for spec in specs.values() for kernels in kernels_of(spec)])
    tell(f"drawing {bench.learners} models of {layout.parameters:,} parameters")
    base, *models = models_of(bench.learners + 1, layout)
    uploads = [Staged(model, 1.0, f"a-{number}") for number, model in enumerate(models)]
    nbytes = bench.learners * layout.nbytes
    with tempfile.TemporaryDirectory(prefix="metisfl-bench-") as directory:
        rules = {rule: rule_of(spec, encoding, _reusing(), Path(directory)) for rule, spec in specs.items()}
        seconds: dict[AggregationRule, list[float]] = {rule: [] for rule in rules}
        for repetition in range(bench.rounds + 1):
            tell(f"repetition {repetition} of {bench.rounds}" if repetition else "warming up")
            for name, rule in rules.items():
                seconds[name].append(_aggregate(rule, base, uploads))
    medians = {name: statistics.median(of_rule[1:]) for name, of_rule in seconds.items()}
    return {
        "learners": bench.learners,
        "byzantine": bench.byzantine,
        "parameters": layout.parameters,
        "layout": bench.layout,
        "rounds": bench.rounds,
        "threads": threads,
        "input_bytes": nbytes,
        "rules": {
            str(name): {
                "seconds_median": median,
                "seconds_min": min(seconds[name][1:]),
                "passes": passes(name, bench.learners, bench.byzantine),
                "bytes_read_per_second": passes(name, bench.learners, bench.byzantine) * nbytes / median,
                "times_fedavg": median / medians[AggregationRule.FED_AVG],
            }
            for name, median in medians.items()
        },
    }


def passes(rule: AggregationRule, learners: int, byzantine: int) -> float:
    """How often a rule reads all uploads."""
    match rule:
        case AggregationRule.KRUM:
            return 1 + 1 / learners
        case AggregationRule.MULTI_KRUM:
            return 1 + (learners - byzantine) / learners
        case AggregationRule.BULYAN:
            return 1 + (learners - 2 * byzantine) / learners
        case AggregationRule.GEOMETRIC_MEDIAN | AggregationRule.CENTERED_CLIP:
            return 2
        case _:
            return 1


def _spec(rule: AggregationRule, byzantine: int) -> AggregationSpec:
    return AggregationSpec(
        rule=rule,
        krum=KrumSpec(byzantine=byzantine),
        multi_krum=MultiKrumSpec(byzantine=byzantine),
        bulyan=BulyanSpec(byzantine=byzantine),
    )


def _reusing() -> Callable[[int], Buffer]:
    """Fresh pages for the model would be measured with every repetition; a controller has them once."""
    buffers: dict[int, Buffer] = {}

    def reused(nbytes: int) -> Buffer:
        return buffers.setdefault(nbytes, aligned_zeros(nbytes))

    return reused


def _aggregate(rule: Rule, base: Buffer, uploads: Sequence[Staged]) -> float:
    started = time.perf_counter()
    rule.reset()
    last = uploads
    if not rule.gathers:
        for start in range(0, len(uploads), rule.models_per_pass):
            rule.fold(uploads[start : start + rule.models_per_pass], base)
        last = ()
    rule.finish(base, last)
    return time.perf_counter() - started
