"""Put the page together and write it."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from metisfl.local.progress.words import size
from metisfl.local.record import RunRecord
from metisfl.local.report import charts, page
from metisfl.local.report.series import curves, phase_bars


def write_report(record: RunRecord, target: Path) -> None:
    """Write report.html: everything inside, no scripts. Raises OSError."""
    target.write_text(render(record), encoding="utf-8")


def render(record: RunRecord) -> str:
    """The page for one run."""
    environment = Environment(
        loader=PackageLoader("metisfl.local.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence"] = page.sentence
    federation = page.federation_of(record)
    word, why = page.verdict(record)
    bars = phase_bars(record.rounds)
    # Drawn here, from labels that matplotlib has escaped.
    drawings = [
        (
            found.name,
            page.describe_curves(found),
            Markup(charts.metric_chart(found, page.target_for(federation, found.name))),
        )
        for found in curves(record)
    ]
    phases = (
        (page.describe_bars(bars), Markup(charts.phase_chart(bars, wide=True)), Markup(charts.phase_chart(bars, False)))
        if bars.phases
        else None
    )
    return environment.get_template("template.html.j2").render(
        record=record,
        federation=federation,
        verdict=word,
        why=why,
        subtitle=page.subtitle(federation),
        figures=page.figures(record),
        drawings=drawings,
        phases=phases,
        learners=page.learner_table(record),
        evaluators=page.evaluator_table(record),
        rounds=page.round_table(record),
        omitted=max(0, len(record.rounds) - page.MAX_ROUND_ROWS),
        model=record.document.global_model,
        size=size,
    )
