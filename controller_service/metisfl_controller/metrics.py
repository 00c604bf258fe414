"""What Prometheus scrapes. One registry, passed in; no global state."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from metisfl.logs import ContextLogger
from metisfl.wire.limits import MAX_METRICS

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
MAX_METRIC_SERIES = MAX_METRICS
"""Names of model metrics that are shown, of each source: as many as one learner may report."""

_STALENESS = (0, 1, 2, 3, 5, 10, 20, 50, 100)


class ControllerMetrics:
    """The controller's metrics; every name starts with `metisfl_`."""

    def __init__(self, registry: CollectorRegistry, federation: str, log: ContextLogger) -> None:
        self.registry = registry
        self._log = log
        self._model_metrics: dict[str, set[str]] = {}
        """Names that are shown, by source."""
        self._complete: set[str] = set()
        """Sources of which no more names are shown."""
        labels = {"federation": federation}

        def gauge(name: str, text: str, *names: str) -> Gauge:
            return Gauge(name, text, ("federation", *names), registry=registry)

        def counter(name: str, text: str, *names: str) -> Counter:
            return Counter(name, text, ("federation", *names), registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(name, text, ("federation",), registry=registry, buckets=_SECONDS).labels(**labels)

        self.round = gauge("metisfl_round", "Round being worked on; the last one when none is").labels(**labels)
        self.model_version = gauge("metisfl_model_version", "Newest committed model version").labels(**labels)
        self.rounds_committed = counter("metisfl_rounds_committed", "Rounds committed by this process").labels(**labels)
        self.round_seconds = histogram("metisfl_round_seconds", "Whole rounds, from dispatch to commit")
        self.aggregation_seconds = histogram("metisfl_aggregation_seconds", "Kernel time of a round, fold and finish")
        self.commit_seconds = histogram("metisfl_commit_seconds", "Writing and syncing a model version")
        self.update_staleness = Histogram(
            "metisfl_update_staleness",
            "Versions made between an update's own base and the version that it went into",
            ("federation",),
            registry=registry,
            buckets=_STALENESS,
        ).labels(**labels)
        self._learners = gauge(
            "metisfl_learners", "Learners by state: desired, connected, ready, participating", "state"
        )
        transferred = counter(
            "metisfl_transfer_bytes", "Model payload bytes: sent to and received from learners", "direction"
        )
        # Looked up once: these two count every chunk.
        self._sent = transferred.labels(federation, "sent")
        self._received = transferred.labels(federation, "received")
        self._uploads = counter("metisfl_uploads", "Finished uploads by outcome", "outcome")
        self.output_pending = gauge("metisfl_output_pending", "Model versions on their way to spec.output").labels(
            **labels
        )
        self._output_uploads = counter(
            "metisfl_output_uploads", "Deliveries of models to spec.output by outcome: delivered, failed", "outcome"
        )
        self._evaluators = gauge("metisfl_evaluators", "Evaluators by state: desired, connected, working", "state")
        self.evaluations_missed = counter(
            "metisfl_evaluations_missed", "Versions that an evaluator was too busy or not there to evaluate"
        ).labels(**labels)
        self._model_metric = gauge(
            "metisfl_model_metric",
            "Newest metrics of the model, by metric and by source: Learners, Evaluators",
            "metric",
            "source",
        )
        self._federation = federation
        self.bytes_sent = 0
        self.bytes_received = 0

    def learners(self, state: str, count: int) -> None:
        self._learners.labels(self._federation, state).set(count)

    def evaluators(self, state: str, count: int) -> None:
        self._evaluators.labels(self._federation, state).set(count)

    def sent(self, count: int) -> None:
        self.bytes_sent += count
        self._sent.inc(count)

    def received(self, count: int) -> None:
        self.bytes_received += count
        self._received.inc(count)

    def upload(self, outcome: str) -> None:
        self._uploads.labels(self._federation, outcome).inc()

    def upload_to_output(self, outcome: str) -> None:
        self._output_uploads.labels(self._federation, outcome).inc()

    def model_metric(self, name: str, value: float, source: str) -> None:
        """Learners name metrics as they like, and Prometheus keeps a series for each name: no more than
        MAX_METRIC_SERIES are shown, those that came first."""
        shown = self._model_metrics.setdefault(source, set())
        if name not in shown and len(shown) >= MAX_METRIC_SERIES:
            if source not in self._complete:
                self._complete.add(source)
                self._log.warning(
                    "%s have named more than %d metrics: '%s' and others that are new are not told to Prometheus; "
                    "the history has them",
                    source,
                    MAX_METRIC_SERIES,
                    name,
                )
            return
        shown.add(name)
        self._model_metric.labels(self._federation, name, source).set(value)
