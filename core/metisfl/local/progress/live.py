"""Progress on a terminal, redrawn in place."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from metisfl.api import EvaluatorDocument, FederationDocument, FederationState, LearnerDocument
from metisfl.local.progress.display import Snapshot
from metisfl.local.progress.estimate import time_left
from metisfl.local.progress.trends import sparkline, trends
from metisfl.local.progress.words import duration, goal, number, plural, shape, size
from metisfl.spec import Federation

_MOST_ROWS = 16
_TREND_WIDTH = 24
_STATES = {
    FederationState.WAITING_FOR_LEARNERS: "waiting for learners",
    FederationState.INITIALISING: "initial model",
    FederationState.TRAINING: "training",
    FederationState.EVALUATING: "evaluating",
    FederationState.DELIVERING: "delivering the model",
    FederationState.COMPLETE: "complete",
    FederationState.FAILED: "failed",
}
_ACTIVITY_STYLES = {"Training": "cyan", "Evaluating": "magenta", "Lost": "red", "Idle": "dim", "Left": "dim"}


class LiveDisplay:
    """Header, round bar, learners, metrics and bytes; notes scroll by above them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._federation: Federation | None = None

    def open(self, federation: Federation, output: str) -> None:
        self._federation = federation
        self._live = Live(
            Group(_header(federation), Spinner("dots", "starting controller and learners")),
            console=self._console,
            refresh_per_second=8,
        )
        self._live.start()

    def update(self, snapshot: Snapshot) -> None:
        if self._live and self._federation:
            self._live.update(frame(self._federation, snapshot, self._console.height))

    def note(self, text: str) -> None:
        self._console.print(Text(text, style="yellow"), soft_wrap=True)

    def close(self) -> None:
        if self._live:
            self._live.stop()


def frame(federation: Federation, snapshot: Snapshot, height: int) -> RenderableType:
    """Everything on the screen at one moment; at most `height` lines."""
    metrics = _metrics(snapshot)
    rows = max(3, min(_MOST_ROWS, height - 10 - len(metrics.rows)))
    return Group(
        _header(federation),
        _rounds(snapshot, federation.spec.termination.max_duration_seconds, federation.spec.protocol.type.unit),
        Padding(_learners(snapshot, rows), (1, 0)),
        metrics,
        _traffic(snapshot.document),
    )


def _header(federation: Federation) -> RenderableType:
    return Text.assemble(
        (federation.metadata.name, "bold"), "  ", (shape(federation), "dim"), "  ", (goal(federation), "dim")
    )


def _rounds(snapshot: Snapshot, max_seconds: int | None, unit: str) -> RenderableType:
    document = snapshot.document
    line = Table.grid(padding=(0, 2))
    left = time_left(document, snapshot.rounds, max_seconds, snapshot.now)
    style = {FederationState.COMPLETE: "green", FederationState.FAILED: "red"}.get(document.state, "cyan")
    line.add_row(
        Text(_STATES[document.state], style=style),
        ProgressBar(document.max_rounds, document.committed_rounds, width=32, complete_style=style),
        Text(f"{document.committed_rounds}/{plural(document.max_rounds, unit)}"),
        Text(_elapsed(snapshot), style="dim"),
        Text(f"at most {duration(left)} left" if left is not None and not document.state.final else "", style="dim"),
    )
    why = ": ".join(filter(None, [document.reason, document.message]))
    return Group(line, Text(why, style="dim")) if why else line


def _elapsed(snapshot: Snapshot) -> str:
    start, end = snapshot.document.start_time, snapshot.document.completion_time or snapshot.now
    return duration(end - start) if start else duration(timedelta())


def _learners(snapshot: Snapshot, most: int) -> RenderableType:
    document = snapshot.document
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("learner")
    table.add_column("activity")
    table.add_column("progress", width=12)
    table.add_column("rounds", justify="right")
    table.add_column("examples", justify="right")
    table.add_column("restarts", justify="right")
    # Who is in trouble comes first when not all fit.
    ordered = sorted([*document.learners, *document.evaluators], key=lambda learner: (_is_well(learner), learner.id))
    shown = ordered[:most] if len(ordered) > most else sorted(ordered, key=lambda learner: learner.id)
    for learner in shown:
        _add_learner(table, learner, snapshot.restarts.get(learner.id, 0))
    if rest := ordered[len(shown) :]:
        counts = Counter(learner.activity.lower() for learner in rest)
        summary = ", ".join(f"{count} {activity}" for activity, count in counts.most_common())
        return Group(table, Text(f"and {len(rest)} more: {summary}", style="dim"))
    return table


def _is_well(learner: LearnerDocument) -> bool:
    return learner.connected and not learner.message


def _activity(learner: LearnerDocument) -> Text:
    activity = Text(learner.activity, style=_ACTIVITY_STYLES.get(learner.activity, ""))
    if learner.message:
        activity.append(f" {learner.message}", style="red")
    return activity


def _add_learner(table: Table, learner: LearnerDocument, restarts: int) -> None:
    busy = 0 < learner.progress <= 1 and learner.activity not in ("Idle", "Lost", "Left")
    table.add_row(
        Text(learner.id),
        _activity(learner),
        ProgressBar(1.0, learner.progress, width=12) if busy else "",
        str(learner.evaluations if isinstance(learner, EvaluatorDocument) else learner.contributions),
        _examples(learner),
        str(restarts) if restarts else "",
    )


def _examples(learner: LearnerDocument) -> str:
    if learner.train_examples:
        return f"{learner.train_examples} + {learner.test_examples} held out"
    return f"{learner.test_examples} held out" if learner.test_examples else ""


def _metrics(snapshot: Snapshot) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, values in trends(snapshot.document, snapshot.rounds).items():
        table.add_row(
            Text(name),
            Text(number(values[-1]), style="bold"),
            Text(sparkline(values, _TREND_WIDTH), style="cyan"),
        )
    return table


def _traffic(document: FederationDocument) -> RenderableType:
    return Text(f"sent {size(document.bytes_sent)}, received {size(document.bytes_received)}", style="dim")
