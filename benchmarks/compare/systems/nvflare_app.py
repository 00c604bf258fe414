"""What an NVIDIA FLARE job runs: its own FedAvg, noting when rounds begin, and an executor that does no training."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import MetaKey, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.workflows.fedavg import FedAvg

EVENTS = {
    AppEventType.ROUND_STARTED: "start",
    AppEventType.BEFORE_AGGREGATION: "received",
    AppEventType.AFTER_AGGREGATION: "aggregated",
}


class TimedFedAvg(FedAvg):
    """Starts from random values of the `shapes` given (JSON), and keeps no model on disk."""

    def __init__(self, num_clients: int, num_rounds: int, shapes: str, times: str) -> None:
        super().__init__(num_clients=num_clients, num_rounds=num_rounds, persistor_id="")
        # Named as the arguments: the job's configuration is made from these attributes.
        self.num_clients = num_clients
        self.num_rounds = num_rounds
        self.shapes = shapes
        self.times = times

    def load_model(self) -> FLModel:
        generator = np.random.default_rng(0)
        arrays = [generator.standard_normal(shape, np.float32) for shape in json.loads(self.shapes)]
        return FLModel(params_type=ParamsType.FULL, params={str(number): array for number, array in enumerate(arrays)})

    def save_model(self, model: FLModel) -> None:
        pass

    def event(self, event_type: str) -> None:
        self._note(event_type)
        super().event(event_type)

    def fire_event_with_data(self, event_type: str, *arguments: Any) -> None:
        self._note(event_type)
        super().fire_event_with_data(event_type, *arguments)

    def _note(self, event_type: str) -> None:
        if event_type in EVENTS:
            note = {"event": EVENTS[event_type], "at": time.time(), "replies": self._received_count}
            with Path(self.times).open("a") as file:
                file.write(json.dumps(note) + "\n")


class Returns(Executor):
    """Sends back the arrays it was sent."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        model = from_shareable(shareable)
        model.set_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 1)
        return model.to_shareable()
