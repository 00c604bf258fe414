"""Documents as a controller would serve them, for tests of what reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from metisfl.api import (
    FederationDocument,
    FederationState,
    GlobalModel,
    LearnerDocument,
    MetricValue,
    ModelDocument,
    RoundDocument,
)
from metisfl.local.record import RunRecord

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

YAML = """apiVersion: metisfl.dev/v1alpha1
kind: Federation
metadata:
  name: digits
spec:
  learner:
    entrypoint: my_learner:MyLearner
  termination:
    maxRounds: 20
    targetMetric: {name: accuracy, atLeast: "0.97"}
  learnerGroups:
  - {name: silo-a, replicas: 2}
  - {name: silo-b, replicas: 2}
"""


def round_document(number: int, metrics: dict[str, float], train: dict[str, float]) -> RoundDocument:
    """Round `number`, two seconds long."""
    start = START + timedelta(seconds=2 * (number - 1))
    return RoundDocument(
        number=number,
        version=number,
        started_at=start,
        ended_at=start + timedelta(seconds=2),
        participants=["silo-a-0", "silo-a-1", "silo-b-0", "silo-b-1"],
        contributors=["silo-a-0", "silo-a-1", "silo-b-0", "silo-b-1"],
        phase_seconds={"train": 1.6, "aggregate": 0.2, "commit": 0.05},
        train_metrics=train,
        metrics=[MetricValue(name=k, value=v, version=number, examples=360) for k, v in metrics.items()],
        bytes_received=144_000,
        bytes_sent=145_000,
    )


def rounds(count: int) -> list[RoundDocument]:
    """A run whose accuracy rises and whose losses fall."""
    return [
        round_document(n, {"accuracy": 1 - 0.6 / (n + 0.5), "loss": 1.9 / n + 0.08}, {"loss": 1.7 / n + 0.05})
        for n in range(1, count + 1)
    ]


def learner(name: str, activity: str = "Idle", message: str = "", progress: float = 0.0) -> LearnerDocument:
    """A connected learner unless it is Lost or has Left."""
    return LearnerDocument(
        id=name,
        group=name.rpartition("-")[0],
        connected=activity not in ("Lost", "Left"),
        activity=activity,
        progress=progress,
        message=message,
        train_examples=359,
        test_examples=90,
        contributions=3,
    )


def federation_document(
    done: list[RoundDocument],
    state: FederationState = FederationState.COMPLETE,
    message: str = "",
    max_rounds: int = 20,
) -> FederationDocument:
    """The federation after the rounds in `done`."""
    return FederationDocument(
        name="digits",
        uid="c0ffee",
        incarnation=1,
        state=state,
        reason="TargetReached" if state is FederationState.COMPLETE else "",
        message=message,
        current_round=len(done),
        committed_rounds=len(done),
        max_rounds=max_rounds,
        learners=[learner(f"silo-{group}-{n}") for group in "ab" for n in range(2)],
        desired_learners=4,
        metrics=done[-1].metrics if done else [],
        global_model=GlobalModel(version=len(done), sha256="ab" * 32, location="models/v.safetensors", bytes=36_000)
        if done
        else None,
        bytes_sent=sum(entry.bytes_sent for entry in done),
        bytes_received=sum(entry.bytes_received for entry in done),
        start_time=START,
        completion_time=done[-1].ended_at if done and state.final else None,
    )


def record(count: int = 12, state: FederationState = FederationState.COMPLETE, message: str = "") -> RunRecord:
    """A run of `count` rounds."""
    done = rounds(count)
    return RunRecord(
        final=state.final,
        ending=message,
        federation_yaml=YAML,
        document=federation_document(done, state, message),
        rounds=done,
        models=[
            ModelDocument(
                version=0,
                sha256="cd" * 32,
                bytes=36_000,
                created_at=START,
                metrics=[MetricValue(name="accuracy", value=0.1, version=0, examples=360)],
            )
        ],
        restarts={"silo-a-0": 1},
        seconds=41.4,
        created_at=START,
        versions={"metisfl": "0.1.0", "Python": "3.11.7"},
    )
