"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from metisfl.local.folder import RunFolder
from metisfl.local.progress.words import duration, evaluators_name, number, plural

INTERRUPTED_EXIT = 130


@dataclass(frozen=True)
class FailedProcess:
    """The process that ended the run, and the last lines it wrote."""

    name: str
    log: Path
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """`final` when the federation itself came to its end; otherwise the run can be resumed."""

    complete: bool
    final: bool
    reason: str
    message: str
    rounds: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    evaluator_metrics: dict[str, float] = field(default_factory=dict)
    model: Path | None = None
    report: Path | None = None
    output: str | None = None
    """Folder at spec.output where the model lies."""

    interrupted: bool = False
    failed_process: FailedProcess | None = None

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return INTERRUPTED_EXIT
        return 0 if self.complete else 1

    def as_json(self) -> dict[str, object]:
        """The summary that `--json` prints."""
        return {
            "complete": self.complete,
            "rounds": self.rounds,
            "metrics": self.metrics,
            "evaluatorMetrics": self.evaluator_metrics,
            "seconds": round(self.seconds, 3),
            "model": str(self.model) if self.model else None,
            "reason": self.reason,
            "message": self.message,
            "report": str(self.report) if self.report else None,
        }


def told(outcome: Outcome, folder: RunFolder, resume_command: str) -> list[str]:
    """The result, and where everything is, in lines for a terminal."""
    why = ": ".join(filter(None, [outcome.reason, outcome.message]))
    word = "complete" if outcome.complete else "interrupted" if outcome.interrupted else "failed"
    spent = duration(timedelta(seconds=outcome.seconds))
    rounds = f" after {plural(outcome.rounds, 'round')}" if outcome.rounds else ""
    lines = [f"{word}{rounds} in {spent}{f' ({why})' if why else ''}"]
    if outcome.failed_process:
        lines.append(f"the last lines of {shown_path(outcome.failed_process.log)}:")
        lines += [f"  {line}" for line in outcome.failed_process.lines] or ["  (it wrote nothing)"]
    by_evaluators = {evaluators_name(name): value for name, value in outcome.evaluator_metrics.items()}
    metrics = outcome.metrics | by_evaluators
    width = max(map(len, metrics), default=0)
    lines += [f"  {name:<{max(width, 8)}} {number(value)}" for name, value in metrics.items()]
    places = {"model": outcome.model, "report": outcome.report, "logs": folder.logs, "history": folder.history}
    lines += [f"  {name:<8} {shown_path(path)}" for name, path in places.items() if path and path.exists()]
    lines += [f"  output   {outcome.output}"] if outcome.output else []
    if not outcome.final and not outcome.complete:
        # What fails is mostly the learner's code, or an option: as it is it would fail again.
        first = "" if outcome.interrupted else "once that is mended, "
        lines.append(f"{first}go on with: {resume_command}")
    return lines


def shown_path(path: Path) -> str:
    """Relative to the current folder where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
