"""Another image for controller and learners, and other numbers of learners, while rounds go on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

Run = Callable[[dict[str, Any]], str]
Example = Callable[..., dict[str, Any]]

STEADY = {"epochs": 25, "batchSize": 8, "learningRate": "0.05"}
ENDLESS = {"maxRounds": 100_000}
SMALL = {"requests": {"cpu": "20m"}}


@pytest.fixture
def next_images(cluster: Any, images: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Other names for the images of controller and learner, which is what a new release is to Kubernetes."""
    if not cluster.ours:
        pytest.skip("images can be given other names in the node of hack/cluster")
    socket = cluster.kubeconfig.parent / "containerd.sock"
    renamed = {role: f"{images[role]}-next" for role in ("controller", "learner")}

    def ctr(*arguments: str) -> None:
        subprocess.run(["ctr", "-a", socket, "-n", "k8s.io", "images", *arguments], check=True, timeout=60)

    for role, name in renamed.items():
        ctr("tag", "--force", images[role], name)
    yield renamed
    for name in renamed.values():
        ctr("rm", name)


@pytest.mark.slow
def test_images_are_upgraded_while_rounds_go_on(
    lab: Any, run: Run, example: Example, next_images: Mapping[str, str]
) -> None:
    group = {"name": "silo", "replicas": 2, "resources": SMALL}
    name = run(
        example(
            "digits",
            "upgraded",
            training=STEADY,
            termination=ENDLESS,
            learnerGroups=[group],
            controller={"resources": SMALL},
        )
    )
    lab.until("two rounds", lambda: lab.status(name).get("currentRound", 0) >= 2)

    lab.edit(name, learnerGroups=[{**group, "image": next_images["learner"]}])
    learners = [f"{name}-silo-0", f"{name}-silo-1"]
    lab.until("new learners", lambda: running(lab, name, next_images["learner"]) == learners)
    assert lab.controller(name).incarnation == 1

    lab.edit(name, controller={"resources": SMALL, "image": next_images["controller"]})
    controller = [f"{name}-controller-0"]
    lab.until("a new controller", lambda: running(lab, name, next_images["controller"]) == controller)
    document = lab.until("it answers", lambda: connected(lab, name) == 2 and lab.controller(name))
    assert document.incarnation == 2
    lab.until("rounds go on", lambda: len(lab.rounds(name)) > document.current_round + 1)
    rounds = lab.rounds(name)
    assert [entry.number for entry in rounds] == list(range(1, len(rounds) + 1))
    assert rounds[-1].contributors == ["silo-0", "silo-1"]

    lab.edit(name, learnerGroups=[{**group, "image": next_images["learner"], "replicas": 1}])
    lab.until("one learner is left", lambda: lab.rounds(name)[-1].contributors == ["silo-0"])
    lab.until("its pod is", lambda: f"{name}-silo-1" not in lab.pods(name))
    assert lab.status(name)["learners"]["desired"] == 1


def running(lab: Any, name: str, image: str) -> list[str]:
    """Pods that are ready with this image."""
    columns = (
        "custom-columns=:.metadata.name,:.spec.containers[0].image,"
        ":.status.containerStatuses[0].ready,:.metadata.deletionTimestamp"
    )
    table = lab.kubectl(
        *("get", "pods", "-n", lab.namespace, "-l", f"metisfl.dev/federation={name}"), "--no-headers", "-o", columns
    )
    rows = (line.split() for line in table.splitlines())
    return sorted(pod for pod, of, ready, leaving in rows if (of, ready, leaving) == (image, "true", "<none>"))


def connected(lab: Any, name: str) -> int:
    """Learners that the controller knows of; 0 while it is on its way."""
    return int(lab.status(name).get("learners", {}).get("ready", 0))
