"""NVIDIA FLARE (https://nvidia.github.io/NVFlare), in an environment that has `nvflare`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import WorkspaceConstants
from nvflare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.app_common.widgets.component_path_authorizer import CLASS_ALLOW_LIST
from nvflare.job_config.api import FedJob
from nvflare.recipe.sim_env import SimEnv

from benchmarks.compare import arrays, times
from benchmarks.compare.children import CompareError, children
from benchmarks.compare.output import tell
from benchmarks.compare.systems.main import main
from benchmarks.compare.systems.nvflare_app import Returns, TimedFedAvg
from benchmarks.compare.work import Work

ATTEMPTS = 5
LOST = "Communication error with client"


def aggregation(work: Work) -> list[dict[str, Any]]:
    """What its FedAvg does with each result that arrives, and at the end of the round."""
    inputs = arrays.models(work)
    weights = arrays.weights(work)
    named = [{str(number): array for number, array in enumerate(model)} for model in inputs]

    def average() -> dict[str, Any]:
        helper = WeightedAggregationHelper()
        for number, (model, weight) in enumerate(zip(named, weights, strict=True)):
            helper.add(data=model, weight=float(weight), contributor_name=str(number), contribution_round=0)
        result: dict[str, Any] = helper.get_result()
        return result

    path = "WeightedAggregationHelper"
    tell(path)
    return [{"path": path, **arrays.measured(work, inputs, average, lambda result: list(result.values()))}]


class LostClientError(Exception):
    """The simulator could not talk to one of its clients, and would wait for it for ever."""


def rounds(work: Work) -> dict[str, Any]:
    """Rounds in its simulator: a server process, and a process for each client, which talk over loopback.

    The simulator picks a port for every client without keeping it, so that two at times get the same one, and one of
    them is lost. Such starts are tried again.
    """
    deadline = time.monotonic() + work.seconds
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _rounds(work, deadline)
        except LostClientError:
            tell(f"a client was lost at start, as happens in its simulator (attempt {attempt} of {ATTEMPTS})")
    raise CompareError(f"its simulator lost a client in each of {ATTEMPTS} starts")


def _rounds(work: Work, deadline: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="compare-nvflare-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        with children(directory) as started:
            tell(f"starting the simulator with {work.learners} clients")
            started.start(sys.executable, "-m", __spec__.name, "simulate", work.to_json(), name)
            log = directory / "0.log"

            def check() -> None:
                if LOST in log.read_text(errors="replace"):
                    raise LostClientError

            return times.follow(work, directory / "times", started, deadline, check)


def simulate(work: Work, directory: Path) -> None:
    job = FedJob(name="compare", min_clients=work.learners)
    job.set_app_packages(["benchmarks"])
    job.to_server(
        TimedFedAvg(
            num_clients=work.learners,
            num_rounds=work.repetitions + 1,
            shapes=json.dumps(work.shapes),
            times=str(directory / "times"),
        )
    )
    job.to_clients(Returns(), tasks=["train"])
    workspace = directory / "work"
    _allow_own_classes(workspace / job.name)
    SimEnv(num_clients=work.learners, num_threads=work.learners, workspace_root=str(workspace)).deploy(job)


def _allow_own_classes(workspace: Path) -> None:
    """A site loads only classes that its policy names."""
    policy = workspace / WorkspaceConstants.SITE_FOLDER_NAME / WorkspaceConstants.DEFAULT_RESOURCES_CONFIG
    policy.parent.mkdir(parents=True)
    own = [f"{each.__module__}.{each.__qualname__}" for each in (TimedFedAvg, Returns)]
    policy.write_text(json.dumps({"format_version": 2, CLASS_ALLOW_LIST: [*DEFAULT_CLASS_ALLOW_LIST, *own]}))


if __name__ == "__main__":
    if sys.argv[1] == "simulate":
        simulate(Work.from_json(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(aggregation, rounds)
