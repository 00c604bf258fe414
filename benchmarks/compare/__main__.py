"""`python -m benchmarks.compare`, from the repository's root."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from rich.console import Console

from benchmarks.compare import plan, results, runner
from benchmarks.compare.children import CompareError, exit_on_sigterm
from benchmarks.compare.environments import CACHE, ROOT

_CONSOLE = Console(stderr=True)
_CHOICES = [*plan.PARTS, *plan.SYSTEMS]


@click.command()
@click.option("--only", multiple=True, type=click.Choice(_CHOICES), help="These parts or systems; may be repeated.")
@click.option(
    "--quick", is_flag=True, help="2 learners × 10k, once: shows that everything runs. Results go to the cache."
)
@click.option("--repetitions", type=click.IntRange(1), default=7, show_default=True, help="Aggregations of each kind.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Rounds, after one that warms up.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Instead of benchmarks/results.")
def main(only: tuple[str, ...], quick: bool, repetitions: int, rounds: int, output: Path | None) -> None:
    """Compare this project's controller with Flower and NVIDIA FLARE, at the same work on this machine.

    The other two are installed from PyPI into environments under benchmarks/compare/.cache. Results are written after
    each size to compare-aggregate.json and compare-round.json. Nothing else should run meanwhile.
    """
    folder = output or (CACHE / "quick" if quick else ROOT / "benchmarks" / "results")
    systems = [system for system in plan.SYSTEMS if system in only] or list(plan.SYSTEMS)
    parts = [part for part in plan.PARTS if part in only] or list(plan.PARTS)
    command = _command(only, quick, repetitions, rounds)
    if quick:
        repetitions = rounds = 1
    try:
        comparison = runner.Comparison(systems, command, _tell)
        if "aggregate" in parts:
            comparison.aggregate(plan.aggregations(repetitions, quick), results.file_of(folder, "aggregate"))
        if "round" in parts:
            comparison.round(plan.rounds(rounds, quick), results.file_of(folder, "round"))
    except CompareError as error:
        raise click.ClickException(str(error)) from error


def _command(only: tuple[str, ...], quick: bool, repetitions: int, rounds: int) -> str:
    """How to measure the same again; where the results went is not part of it."""
    choices = [word for choice in only for word in ("--only", choice)]
    sizes = ["--quick"] if quick else ["--repetitions", str(repetitions), "--rounds", str(rounds)]
    return shlex.join(["python", "-m", "benchmarks.compare", *choices, *sizes])


def _tell(text: str) -> None:
    _CONSOLE.print(text, highlight=False)


if __name__ == "__main__":
    exit_on_sigterm()
    main(prog_name="python -m benchmarks.compare")
