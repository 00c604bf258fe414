"""Flower (https://flower.ai), in an environment that has `flwr`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.server.strategy.aggregate import aggregate, aggregate_inplace
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from benchmarks.compare import arrays, times
from benchmarks.compare.children import answers, children, free_ports
from benchmarks.compare.output import tell
from benchmarks.compare.systems.main import main
from benchmarks.compare.work import Work

APP = Path(__file__).parents[1] / "flower_app"


def aggregation(work: Work) -> list[dict[str, Any]]:
    """Its FedAvg in three forms. Two begin with the serialised replies that a server holds when it calls them; the
    third with arrays."""
    inputs = arrays.models(work)
    return [_strategy(work, inputs), _in_place(work, inputs), _list(work, inputs)]


def _strategy(work: Work, inputs: list[arrays.Model]) -> dict[str, Any]:
    tell("FedAvg.aggregate_train")
    # Messages name the task that makes them; in a ServerApp, Flower sets this.
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    replies = [_reply(model, weight) for model, weight in zip(inputs, arrays.weights(work), strict=True)]
    strategy = FedAvg()

    def average() -> ArrayRecord:
        record, _ = strategy.aggregate_train(1, replies)
        assert record is not None
        return record

    measured = arrays.measured(work, inputs, average, lambda record: [array.numpy() for array in record.values()])
    return {"path": "FedAvg.aggregate_train", **measured}


def _in_place(work: Work, inputs: list[arrays.Model]) -> dict[str, Any]:
    tell("aggregate_inplace")
    results: list[Any] = [
        (None, FitRes(Status(Code.OK, ""), ndarrays_to_parameters(model), weight, {}))
        for model, weight in zip(inputs, arrays.weights(work), strict=True)
    ]
    measured = arrays.measured(work, inputs, lambda: aggregate_inplace(results), lambda result: result)
    return {"path": "aggregate_inplace", **measured}


def _list(work: Work, inputs: list[arrays.Model]) -> dict[str, Any]:
    tell("aggregate")
    results: list[Any] = list(zip(inputs, arrays.weights(work), strict=True))
    measured = arrays.measured(work, inputs, lambda: aggregate(results), lambda result: result)
    return {"path": "aggregate", **measured}


def _reply(model: Sequence[Any], weight: int) -> Any:
    """What a server holds of a learner's reply: serialised arrays, and the metrics that carry the weight."""
    record = RecordDict(
        {
            "arrays": ArrayRecord({str(number): Array(array) for number, array in enumerate(model)}),
            "metrics": MetricRecord({"num-examples": weight}),
        }
    )
    return Message(content=record, dst_node_id=1, message_type="train")


def rounds(work: Work) -> dict[str, Any]:
    """Rounds of its own processes on loopback without TLS: a SuperLink, a SuperNode for each learner, and the ServerApp
    and ClientApps that they start."""
    scripts = Path(sys.executable).parent
    deadline = time.monotonic() + work.seconds
    with tempfile.TemporaryDirectory(prefix="compare-flower-") as name:
        directory = Path(name)
        link, *nodes = free_ports(1 + work.learners)
        (directory / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{link}"\ninsecure = true\n'
        )
        environment = {
            "FLWR_HOME": name,
            "FLWR_TELEMETRY_ENABLED": "0",
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        }
        notes = directory / "times"
        with children(directory, environment) as started:
            tell("starting the SuperLink")
            started.start(
                f"{scripts}/flower-superlink", "--insecure", "--disable-runtime-dependency-installation",
                "--host", "127.0.0.1", "--port", str(link),
            )  # fmt: skip
            started.require(lambda: answers(link), deadline, "the SuperLink")
            tell(f"starting {work.learners} SuperNodes")
            for port in nodes:
                started.start(
                    f"{scripts}/flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{link}",
                    "--host", "127.0.0.1", "--port", str(port),
                )  # fmt: skip
            started.require(lambda: all(answers(port) for port in nodes), deadline, "the SuperNodes")
            shapes = [list(shape) for shape in work.shapes]
            config = f"learners={work.learners} rounds={work.repetitions + 1} times='{notes}' shapes='{shapes}'"
            started.start(f"{scripts}/flwr", "run", str(APP), "here", "--run-config", config)
            return times.follow(work, notes, started, deadline)


if __name__ == "__main__":
    main(aggregation, rounds)
