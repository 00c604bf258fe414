"""What a slow learner costs each protocol: accuracy over wall-clock time, one learner of four being four times as slow.

`python -m benchmarks.experiments.protocols` measures, keeps every run in protocols.json beside it, writes
docs/images/protocols.{png,svg} and prints the table that docs/protocols.md shows. Batches take 10 and 40 ms, most of
which the learners sleep, so that four of them and the controller do not wait for each other's processor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import click
import matplotlib

from benchmarks.experiments.runs import Trace, run

FEDERATION = Path(__file__).with_suffix(".yaml")
RESULTS = FEDERATION.with_suffix(".json")
IMAGES = Path(__file__).parents[2] / "docs" / "images"
TARGET = 0.95

PROTOCOLS: Mapping[str, Mapping[str, str]] = {
    "Synchronous": {},
    "SemiSynchronous, λ 1": {"protocol.type": "SemiSynchronous"},
    "Asynchronous, bufferSize 1": {"protocol.type": "Asynchronous"},
    "Asynchronous, bufferSize 4": {
        "protocol.type": "Asynchronous",
        "protocol.asynchronous.bufferSize": "4",
        "protocol.asynchronous.mixing": "1",
    },
}


def curve(trace: Trace) -> tuple[list[float], list[float]]:
    """Seconds since the first round began, and the accuracy of the version that was made then."""
    versions = sorted(trace.values.keys() & trace.seconds.keys())
    return [trace.seconds[version] for version in versions], [trace.values[version] for version in versions]


def seconds_to(trace: Trace, target: float) -> float | None:
    """When the first version that reaches the target had been made."""
    times, values = curve(trace)
    return next((time for time, value in zip(times, values, strict=True) if value >= target), None)


def row(name: str, traces: Sequence[Trace]) -> str:
    reached = [seconds_to(trace, TARGET) for trace in traces]
    times = sorted(time for time in reached if time is not None)
    shown = f"{median(times):.1f} ({times[0]:.1f} … {times[-1]:.1f})" if len(times) == len(reached) else "not in time"
    best = median(max(trace.values.values()) for trace in traces)
    versions = median(max(trace.seconds) for trace in traces)
    return f"| {name} | {shown} | {versions:.0f} | {best:.3f} |"


def plot(traces: Mapping[str, Trace], folder: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 3.6), layout="constrained")
    for name, trace in traces.items():
        axes.plot(*curve(trace), label=name, linewidth=1.5)
    axes.axhline(TARGET, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("seconds")
    axes.set_ylabel("accuracy, held-out digits")
    axes.set_ylim(0.6, 1.0)
    axes.legend(loc="lower right", frameon=False)
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"protocols.{suffix}", dpi=150)


def stored(file: Path) -> dict[str, list[Trace]]:
    """Every run so far, by protocol."""
    found = json.loads(file.read_text()) if file.exists() else {}
    return {name: [_trace(each) for each in found.get(name, [])] for name in PROTOCOLS}


def _trace(text: Mapping[str, Mapping[str, float]]) -> Trace:
    return Trace(**{part: {int(version): x for version, x in series.items()} for part, series in text.items()})


def store(file: Path, traces: Mapping[str, Sequence[Trace]]) -> None:
    file.write_text(json.dumps({name: [asdict(each) for each in runs] for name, runs in traces.items()}) + "\n")


@click.command()
@click.option("--seconds", default=30, show_default=True, help="How long each run trains.")
@click.option("--seeds", default=3, show_default=True, help="Runs of each protocol, each with another split.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Runs in it are not repeated.")
@click.option("--folder", type=click.Path(path_type=Path), default=IMAGES, help="Where the plot goes.")
def main(seconds: int, seeds: int, results: Path, folder: Path) -> None:
    found = stored(results)
    for seed in range(seeds):
        for name, overrides in PROTOCOLS.items():
            if len(found[name]) <= seed:
                more = {"termination.maxDurationSeconds": str(seconds), "learner.parameters.seed": str(seed)}
                found[name].append(run(FEDERATION, {**overrides, **more}))
                store(results, found)
    click.echo(f"| protocol | seconds to {TARGET} | versions in {seconds} s | best accuracy |\n|---|---|---|---|")
    for name, traces in found.items():
        click.echo(row(name, traces))
    plot({name: traces[0] for name, traces in found.items()}, folder)


if __name__ == "__main__":
    main()
