"""Progress as lines, for pipes, log files and people who want quiet."""

from __future__ import annotations

from rich.console import Console

from metisfl.api import FederationDocument, FederationState, RoundDocument
from metisfl.local.progress.display import Snapshot
from metisfl.local.progress.estimate import time_left
from metisfl.local.progress.words import duration, evaluators_name, goal, number, plural, shape, training_name
from metisfl.spec import Federation

_TRAINING = "training"
_BEFORE_ROUNDS = (None, FederationState.WAITING_FOR_LEARNERS, FederationState.INITIALISING)


class QuietDisplay:
    """Only what must not be missed."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def open(self, federation: Federation, output: str) -> None:
        """Nothing to show."""

    def update(self, snapshot: Snapshot) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        _print(self._console, text)

    def close(self) -> None:
        """Nothing to close."""


class PlainDisplay:
    """One line for each state, each committed round and each note."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._max_seconds: int | None = None
        self._unit = "round"
        self._state: FederationState | None = None
        self._remark = ""
        self._rounds_shown = 0

    def open(self, federation: Federation, output: str) -> None:
        self._max_seconds = federation.spec.termination.max_duration_seconds
        self._unit = federation.spec.protocol.type.unit
        _print(self._console, f"federation {federation.metadata.name}: {shape(federation)}; {goal(federation)}")
        if output:
            _print(self._console, f"output in {output}")

    def update(self, snapshot: Snapshot) -> None:
        document = snapshot.document
        fresh = snapshot.rounds[self._rounds_shown :]
        if fresh and self._state in _BEFORE_ROUNDS:
            # Quick rounds may all be made between two looks.
            self._state = FederationState.TRAINING
            _print(self._console, _TRAINING)
        for entry in fresh:
            _print(self._console, _round_line(entry, snapshot, self._max_seconds, self._unit))
        self._rounds_shown = len(snapshot.rounds)
        remark = document.message if document.state is FederationState.TRAINING else ""
        if document.state is not self._state or remark not in ("", self._remark):
            self._state, self._remark = document.state, remark or self._remark
            # Whoever follows tells the end.
            if not document.state.final:
                _print(self._console, _state_line(document))

    def note(self, text: str) -> None:
        _print(self._console, text)

    def close(self) -> None:
        """Nothing to close."""


def _round_line(entry: RoundDocument, snapshot: Snapshot, max_seconds: int | None, unit: str) -> str:
    document = snapshot.document
    parts = [
        f"{unit} {entry.number}/{document.max_rounds}: {len(entry.contributors)} of "
        f"{plural(len(entry.participants), 'learner')} in {duration(entry.ended_at - entry.started_at)}"
    ]
    parts += [f"{training_name(name)} {number(value)}" for name, value in entry.train_metrics.items()]
    parts += [f"{metric.name} {number(metric.value)}" for metric in entry.metrics]
    if not entry.metrics:
        # A version is evaluated in the round after it; until then the newest values known are of an earlier one.
        parts += [f"version {metric.version}: {metric.name} {number(metric.value)}" for metric in document.metrics]
    parts += [f"{evaluators_name(metric.name)} {number(metric.value)}" for metric in entry.evaluator_metrics]
    left = time_left(document, snapshot.rounds, max_seconds, snapshot.now)
    if left is not None and not document.state.final:
        parts.append(f"at most {duration(left)} left")
    return ", ".join(parts)


def _state_line(document: FederationDocument) -> str:
    match document.state:
        case FederationState.WAITING_FOR_LEARNERS:
            text = f"waiting for {plural(document.desired_learners, 'learner')}"
        case FederationState.INITIALISING:
            text = "fetching the initial model from the first learner"
        case FederationState.TRAINING:
            text = _TRAINING
        case FederationState.EVALUATING:
            text = "evaluating the last version"
        case FederationState.DELIVERING:
            text = "delivering the model"
        case _:
            text = document.state.value
    why = ": ".join(filter(None, [document.reason, document.message]))
    return f"{text} ({why})" if why else text


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
