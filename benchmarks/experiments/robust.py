"""Two of ten learners attack: which rule keeps learning? `python -m benchmarks.experiments.robust`

Every rule against every attack, by real runs of examples/attackers; what was run before is not run again. Results go to
benchmarks/results/experiments/robust.json, the plot to docs/images, and the table for docs/robustness.md to standard
output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.experiments.runs import run

ROOT = Path(__file__).parents[2]
FEDERATION = ROOT / "examples/attackers/federation.yaml"
RESULTS = ROOT / "benchmarks/results/experiments/robust.json"
IMAGES = ROOT / "docs/images"

RULES: dict[str, str] = {
    "FedAvg": "{rule: FedAvg}",
    "Median": "{rule: Median}",
    "TrimmedMean": '{rule: TrimmedMean, trimmedMean: {fraction: "0.2"}}',
    "Krum": "{rule: Krum, krum: {byzantine: 2}}",
    "MultiKrum": "{rule: MultiKrum, multiKrum: {byzantine: 2}}",
    "Bulyan": "{rule: Bulyan, bulyan: {byzantine: 2}}",
    "GeometricMedian": "{rule: GeometricMedian, weighting: Participants}",
    "CenteredClip": "{rule: CenteredClip}",
}

MORE: dict[str, dict[str, str]] = {"Bulyan": {"learnerGroups.honest.replicas": "9"}}
"""Bulyan withstands two attackers among eleven."""

SCENES: dict[str, dict[str, str]] = {
    "no attack": {"learnerGroups.attackers.parameters.attack": "none"},
    "sign flip ×10": {"learnerGroups.attackers.parameters.attack": "sign-flip"},
    "noise σ = 10": {"learnerGroups.attackers.parameters.attack": "noise"},
}

_GOOD = 0.9

Values = dict[str, dict[str, dict[int, float]]]
"""Accuracy by scene, rule and version."""


def measure() -> Values:
    found = load()
    for scene, setting in SCENES.items():
        for rule, aggregation in RULES.items():
            of_scene = found.setdefault(scene, {})
            if rule in of_scene:
                continue
            trace = run(FEDERATION, {"aggregation": aggregation, **setting, **MORE.get(rule, {})})
            of_scene[rule] = dict(trace.values)
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
            print(f"{scene}, {rule}: {trace.last:.3f}", file=sys.stderr, flush=True)
    return found


def load() -> Values:
    """What has been measured before."""
    if not RESULTS.exists():
        return {}
    return {
        scene: {rule: {int(version): value for version, value in values.items()} for rule, values in rules.items()}
        for scene, rules in json.loads(RESULTS.read_text()).items()
    }


def table(found: Values) -> str:
    """Accuracy of each rule's last version, in Markdown; what learns in spite of the attack is bold."""
    lines = [f"| rule | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    for rule in RULES:
        cells = [_cell(rules.get(rule)) for rules in found.values()]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Mapping[int, float] | None) -> str:
    if not values:
        return "–"
    last = values[max(values)]
    return f"**{last:.3f}**" if last >= _GOOD else f"{last:.3f}"


def plot(found: Values) -> None:
    """Accuracy by round, one panel for each scene, as SVG and PNG."""
    with mpl.rc_context({"svg.hashsalt": "metisfl", "svg.fonttype": "none", "font.size": 9, "axes.axisbelow": True}):
        figure = Figure(figsize=(1 + 3 * len(found), 4), layout="constrained")
        panels = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False).ravel()
        colours = mpl.colormaps["tab10"].colors
        for panel, (scene, rules) in zip(panels, found.items(), strict=True):
            for number, rule in enumerate(RULES):
                values = rules.get(rule, {})
                style = "--" if rule == "FedAvg" else "-"
                panel.plot(list(values), list(values.values()), style, color=colours[number], label=rule, lw=1.5)
            panel.axhline(_GOOD, color="0.6", lw=0.8, ls=":")
            panel.set_title(scene)
            panel.set_ylim(0, 1)
            panel.grid(color="0.92")
            panel.set_xlabel("round")
        panels[0].set_ylabel("accuracy on held-out digits")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
            figure.savefig(IMAGES / f"robust-rules{suffix}", dpi=130, metadata=metadata)


def main() -> None:
    found = measure()
    plot(found)
    print(table(found))


if __name__ == "__main__":
    main()
