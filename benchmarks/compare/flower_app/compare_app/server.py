"""A ServerApp with Flower's own FedAvg, which notes when its rounds begin."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    """A round lasts from one call to configure the training to the next, or to the end of the last aggregation."""

    def __init__(self, times: Path, **options: Any) -> None:
        super().__init__(**options)
        self._times = times

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._note("start")
        messages: Iterable[Message] = super().configure_train(server_round, arrays, config, grid)
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        received = list(replies)
        self._note("received", replies=sum(not reply.has_error() for reply in received))
        result = super().aggregate_train(server_round, received)
        self._note("aggregated")
        return result

    def _note(self, event: str, **more: Any) -> None:
        with self._times.open("a") as file:
            file.write(json.dumps({"event": event, "at": time.time(), **more}) + "\n")


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    learners = int(config["learners"])
    generator = np.random.default_rng(0)
    shapes = json.loads(str(config["shapes"]))
    arrays = ArrayRecord([generator.standard_normal(shape, np.float32) for shape in shapes])
    strategy = Timed(
        Path(str(config["times"])),
        fraction_evaluate=0.0,
        min_train_nodes=learners,
        min_available_nodes=learners,
    )
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(config["rounds"]))
