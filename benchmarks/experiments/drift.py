"""What helps when learners' data is unlike: FedProx and SCAFFOLD against FedAvg, ten learners, Dirichlet α = 0.05.

`python -m benchmarks.experiments.drift` writes docs/images/drift.{png,svg} and prints the table that docs/training.md
shows. Each seed is another division of the data and another initial model, the same for all methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median

import click
import matplotlib

from benchmarks.experiments.runs import Trace, run

FEDERATION = Path(__file__).with_suffix(".yaml")
IMAGES = Path(__file__).parents[2] / "docs" / "images"
TARGET = 0.95
ROUNDS = (5, 10, 20, 30)

METHODS: Mapping[str, Mapping[str, str]] = {
    "FedAvg": {},
    "FedProx, µ 0.01": {"training.proximalMu": "0.01"},
    "FedProx, µ 0.1": {"training.proximalMu": "0.1"},
    "Scaffold": {"aggregation.rule": "Scaffold"},
}


def rounds_to(trace: Trace, target: float) -> int | None:
    """The first version that reaches the target; version v is made by round v."""
    return next((version for version in sorted(trace.values) if trace.values[version] >= target), None)


def row(name: str, traces: Sequence[Trace]) -> str:
    cells = []
    for number in ROUNDS:
        values = [trace.values[number] for trace in traces if number in trace.values]
        cells.append(f"{mean(values):.3f} ({min(values):.3f} … {max(values):.3f})" if values else "")
    reached = [rounds_to(trace, TARGET) for trace in traces]
    done = [number for number in reached if number is not None]
    first = f"{median(done):.0f}" if len(done) == len(reached) else f"{len(done)} of {len(reached)} runs"
    return f"| {name} | {' | '.join(cells)} | {first} |"


def plot(found: Mapping[str, Sequence[Trace]], folder: Path) -> None:
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "metisfl", "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 3.8), layout="constrained")
    for name, traces in found.items():
        versions = sorted(set.intersection(*(set(trace.values) for trace in traces)) - {0})
        values = [[trace.values[version] for trace in traces] for version in versions]
        (line,) = axes.plot(versions, [mean(each) for each in values], label=name, linewidth=1.6)
        axes.fill_between(
            versions, list(map(min, values)), list(map(max, values)), color=line.get_color(), alpha=0.12, linewidth=0
        )
    axes.axhline(TARGET, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("rounds of 5 local epochs")
    axes.set_ylabel("accuracy, held-out digits")
    axes.set_xlim(1, None)
    axes.set_ylim(0.3, 1.0)
    axes.legend(loc="lower right", frameon=False)
    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        figure.savefig(folder / f"drift{suffix}", dpi=130, metadata=metadata)


@click.command()
@click.option("--seeds", default=3, show_default=True, help="Runs of each method.")
@click.option("--folder", type=click.Path(path_type=Path), default=IMAGES, help="Where the plot goes.")
def main(seeds: int, folder: Path) -> None:
    found: dict[str, list[Trace]] = {name: [] for name in METHODS}
    for seed in range(seeds):
        for name, overrides in METHODS.items():
            found[name].append(run(FEDERATION, {**overrides, "learner.parameters.seed": str(seed)}))
            click.echo(row(name, found[name][-1:]), err=True)
    click.echo(f"| | {' | '.join(f'after {number}' for number in ROUNDS)} | rounds to {TARGET} |")
    click.echo("|---" * (len(ROUNDS) + 2) + "|")
    for name, traces in found.items():
        click.echo(row(name, traces))
    plot(found, folder)


if __name__ == "__main__":
    main()
