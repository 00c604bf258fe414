"""`metisfl run`: one federation on this machine, from an empty folder to a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from metisfl.api import FederationState, MetricValue
from metisfl.local.folder import RunFolder
from metisfl.local.interrupts import Interrupted, Interrupts
from metisfl.local.outcome import FailedProcess, Outcome
from metisfl.local.plan import Surroundings
from metisfl.local.processes import ProcessGroup
from metisfl.local.progress.display import Display
from metisfl.local.record import RunRecord, installed_versions
from metisfl.local.session import Findings, Limits, RunFailedError, Session
from metisfl.local.supervisor import ProcessFailedError, Supervisor
from metisfl.spec import Federation

ReportWriter = Callable[[RunRecord, Path], None]


@dataclass(frozen=True)
class _Failure:
    message: str
    process: FailedProcess


def run_federation(
    federation: Federation,
    folder: RunFolder,
    uid: str,
    surroundings: Surroundings,
    display: Display,
    write_report: ReportWriter,
    limits: Limits,
) -> Outcome:
    """Run a federation to its end in a prepared folder; leaves model, history, logs, summary and report there.

    Nothing that was started still runs when this returns, whatever happened. Failures and interrupts are outcomes, not
    exceptions.
    """
    began = time.monotonic()
    restarts: dict[str, int] = {}
    findings: Findings | None = None
    failure: _Failure | None = None
    session: Session | None = None
    with Interrupts() as interrupts, closing(display):
        try:
            display.open(federation, str(folder.root))
            with ProcessGroup(folder.logs) as group:
                supervisor = Supervisor(group, display.note)
                session = Session(federation, folder, uid, surroundings, supervisor, display, limits)
                try:
                    failure = _drive(session, supervisor)
                    findings = session.collect()
                finally:
                    session.close()
                    restarts = supervisor.restarts()
                    group.stop(limits.stop, lambda: interrupts.impatient)
            return _conclude(folder, findings, failure, restarts, time.monotonic() - began, write_report)
        except Interrupted as interrupt:
            latest = session.latest if session else None
            return Outcome(
                complete=False,
                final=False,
                reason="Interrupted",
                message=f"stopped by {interrupt}",
                rounds=latest.committed_rounds if latest else 0,
                seconds=time.monotonic() - began,
                metrics=_metrics(latest.metrics) if latest else {},
                evaluator_metrics=_metrics(latest.evaluator_metrics) if latest else {},
                interrupted=True,
            )


def _drive(session: Session, supervisor: Supervisor) -> _Failure | None:
    try:
        session.start()
        session.follow()
        session.bid_farewell()
    except ProcessFailedError as error:
        return _Failure(str(error), FailedProcess(error.name, error.log, tuple(error.lines)))
    except RunFailedError as error:
        log, lines = supervisor.log(error.process), supervisor.log_end(error.process)
        return _Failure(str(error), FailedProcess(error.process, log, tuple(lines)))
    return None


def _conclude(
    folder: RunFolder,
    findings: Findings | None,
    failure: _Failure | None,
    restarts: dict[str, int],
    seconds: float,
    write_report: ReportWriter,
) -> Outcome:
    if findings is None:
        return Outcome(
            complete=False,
            final=False,
            reason="ProcessFailed" if failure else "NoAnswer",
            message=failure.message if failure else "the controller did not answer at the end",
            rounds=0,
            seconds=seconds,
            failed_process=failure.process if failure else None,
        )
    document = findings.document
    failed = failure if not document.state.final else None
    record = RunRecord(
        final=document.state.final,
        ending=failed.message if failed else document.message or document.reason,
        federation_yaml=folder.federation.read_text(encoding="utf-8"),
        document=document,
        rounds=findings.rounds,
        models=findings.models,
        restarts=restarts,
        seconds=seconds,
        created_at=datetime.now(UTC),
        versions=installed_versions(),
    )
    folder.summary.write_text(record.model_dump_json(by_alias=True, indent=2), encoding="utf-8")
    write_report(record, folder.report)
    return Outcome(
        complete=document.state is FederationState.COMPLETE,
        final=document.state.final,
        reason="ProcessFailed" if failed else document.reason,
        message=failed.message if failed else document.message,
        rounds=document.committed_rounds,
        seconds=seconds,
        metrics=_metrics(document.metrics),
        evaluator_metrics=_metrics(document.evaluator_metrics),
        model=findings.model,
        output=document.output.url if document.output and document.output.delivered is not None else None,
        report=folder.report,
        failed_process=failed.process if failed else None,
    )


def _metrics(values: Iterable[MetricValue]) -> dict[str, float]:
    return {metric.name: metric.value for metric in values}
