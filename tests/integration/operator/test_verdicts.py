"""Small changes to one object, each judged by the models and by an API server with CEL and strict decoding: both say
the same. What a user reads from `metisfl validate` is what `kubectl apply` would say.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from metisfl.spec import SpecError, parse_federation
from metisfl.spec.rules import changed_for_good

STRICT = "/apis/metisfl.dev/v1alpha1/namespaces/default/federations?dryRun=All&fieldValidation=Strict"
REFUSED = (400, 422)  # by strict decoding, and by the schema or a rule

BASE: dict[str, Any] = {
    "apiVersion": "metisfl.dev/v1alpha1",
    "kind": "Federation",
    "metadata": {"name": "sample"},
    "spec": {
        "learner": {"entrypoint": "pkg.mod:Class", "parameters": {"alpha": "0.5"}},
        "training": {},
        "protocol": {},
        "aggregation": {},
        "transport": {},
        "termination": {},
        "learnerGroups": [{"name": "a", "replicas": 2}, {"name": "b", "storage": {}}],
        "controller": {"storage": {}},
        "security": {"tls": {}},
    },
}
TARGET = {"name": "accuracy", "atLeast": "0.9"}
OUTSIDE = {"name": "site", "external": True, "maxLearners": 2}

# Where, and values that are taken there. A path below spec; `learnerGroups.0` is the first group.
VALID: dict[str, tuple[Any, ...]] = {
    "learner.entrypoint": ("m:C", "a.b_c.d:_E1"),
    "learner.partitions": (3, 100_000),
    "learner.parameters": ({}, {"_a.b-c": ""}),
    "learner.sourceRef": ({"name": "code"},),
    "training.epochs": (1, 10_000),
    "training.steps": (500,),
    "training.learningRate": ("0", "0.000000000001", "999999999"),
    "training.proximalMu": ("0.01",),
    "evaluation": ({"everyRounds": 7},),
    "protocol": (
        {"type": "Synchronous", "synchronous": {"quorumPercent": 1}},
        {"type": "SemiSynchronous", "semiSynchronous": {"lambda": "2"}},
        {"type": "Asynchronous", "asynchronous": {"bufferSize": 4, "staleness": {"type": "Constant"}}},
    ),
    "selection": (
        {"type": "Random", "random": {"fraction": "0.5"}},
        {"type": "RoundRobin", "roundRobin": {"learners": 2}},
        {"type": "PowerOfChoice", "powerOfChoice": {"candidates": 3, "learners": 2}},
        {"type": "PerGroup", "perGroup": {"learners": 1}, "minLearners": 3},
    ),
    "aggregation": (
        {"rule": "FedNova", "fedNova": {"localMomentum": "0.9"}},
        {"weighting": "Participants", "clipNorm": "10"},
        {"serverOptimizer": {"type": "Adam", "learningRate": "0.1", "beta1": "0.9"}},
        {"deterministic": True},
    ),
    "transport": ({"codec": "TopK", "topK": {"fraction": "0.01"}}, {"compression": {"type": "Zstd", "level": 19}}),
    "termination.targetMetric": (TARGET, {"name": "loss", "atMost": "-1.5", "patience": 3}),
    "learnerGroups": ([{"name": "a"}, OUTSIDE],),
    "learnerGroups.0.replicas": (0, 10_000),
    "learnerGroups.0.storage": ({"size": "20Gi", "storageClassName": "fast"},),
    "learnerGroups.0.env": ([{"name": "A", "value": ""}, {"name": "B", "valueFrom": {"fieldRef": {}}}],),
    "learnerGroups.0.podLabels": ({"example.test/team": "x"},),
    "learnerGroups.0.resources": ({"limits": {"nvidia.com/gpu": 1}},),
    "learnerGroups.0.tolerations": ([{"operator": "Exists"}],),
    "learnerGroups.0.imagePullSecrets": ([{"name": "registry"}],),
    "controller.memoryBudget": ("512Mi", "1.5G"),
    "controller.storage": ({"size": "10Gi", "storageClassName": "fast"}, {"existingClaim": "kept"}, {"retain": True}),
    "controller.protectFromEviction": (True,),
    "controller.env": ([{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],),
    "security.tls": ({"mode": "Auto"}, {"mode": "Disabled"}),
    "managedBy": ("kueue.x-k8s.io/multikueue",),
    "suspend": (True,),
    "ttlSecondsAfterFinished": (0, 31_536_000),
}

INVALID: dict[str, tuple[Any, ...]] = {
    "learner": ({}, {"entrypoint": "m:C", "sourceref": {"name": "code"}}),
    "learner.entrypoint": ("m", "m:", "m.C", "1m:C", "m:C.D", "", 7),
    "learner.partitions": (0, 2, 100_001, "3"),
    "learner.parameters": ({"alpha": 0.5}, {"alpha": "x" * 1025}),
    "learner.sourceRef": ({}, {"name": "Code"}),
    "training.epochs": (0, 10_001, 1.5, "1", True),
    "training": ({"epochs": 1, "steps": 5}, {"epoch": 1}),
    "training.learningRate": (0.05, "-0.1", "1e-3", ".5", "0,1"),
    "protocol": (
        {"type": "Gossip"},
        {"synchronous": {"quorumPercent": 101}},
        {"type": "Asynchronous", "synchronous": {}},
        {"type": "Asynchronous", "asynchronous": {"bufferSize": 0}},
    ),
    "selection": (
        {"type": "Random"},
        {"type": "All", "random": {"fraction": "0.5"}},
        {"type": "Random", "random": {"fraction": "0"}},
        {"type": "PowerOfChoice", "powerOfChoice": {"candidates": 1, "learners": 2}},
        {"minLearners": 4},
    ),
    "aggregation": (
        {"rule": "FedProx"},
        {"fedNova": {"localMomentum": "0.9"}},
        {"rule": "FedNova", "fedNova": {"localMomentum": "1"}},
        {"clipNorm": "0"},
    ),
    "transport": (
        {"codec": "Int4"},
        {"codec": "Int8", "topK": {"fraction": "0.1"}},
        {"compression": {"level": 3}},
        {"compression": {"type": "Zstd", "level": 20}},
    ),
    "termination": ({"maxRounds": 0}, {"maxRounds": None, "rounds": 3}),
    "termination.targetMetric": (
        {"name": "accuracy"},
        {**TARGET, "atMost": "1"},
        {"name": "top 1", "atLeast": "0.9"},
        {"atLeast": "0.9"},
    ),
    "learnerGroups": (
        [],
        [{"name": "a", "replicas": 0}],
        [{"name": "a"}, {"name": "a"}],
        [{"name": "controller"}],
        [{"name": "a" * 21}],
        [{"name": "-a"}],
        [{"replicas": 1}],
        [{"name": "a"}, {"name": "site", "external": True}],
        [{"name": "a"}, {**OUTSIDE, "resources": {"limits": {"cpu": "1"}}}],
        [{"name": "a"}, {**OUTSIDE, "storage": {}}],
        "a",
    ),
    "learnerGroups.0.replicas": (-1, 10_001, "2"),
    "learnerGroups.0.storage": ({"size": "ten"}, {"existingClaim": "kept"}),
    "learnerGroups.0.env": (
        [{"name": "METISFL_STATE_DIR", "value": "/"}],
        [{"name": "A", "value": "1", "valueFrom": {}}],
        [{"name": "A"}, {"name": "A"}],
        [{"name": "1A"}],
        [{"name": "A", "value": 1}],
        [{"name": "A", "val": "1"}],
    ),
    "learnerGroups.0.podLabels": ({"metisfl.dev/group": "b"}, {"app.kubernetes.io/name": "x"}, {"team": "x" * 64}),
    "learnerGroups.0.resource": ({},),
    "learnerGroups.0.imagePullSecrets": (["registry"], [{"secret": "registry"}]),
    "controller.memoryBudget": ("512", "0Mi", "4 Gi"),
    "controller.storage": (
        {"size": "ten"},
        {"existingClaim": "Kept"},
        {"existingClaim": "kept", "retain": True},
        {"retain": "yes"},
    ),
    "controller.env": ([{"name": "METISFL_THREADS", "value": "1"}],),
    "controller.podLabels": ({"metisfl.dev/federation": "other"}, {"app.kubernetes.io/name": "other"}),
    "controller.threads": (0, 1025),
    "security.tls": ({"mode": "Sometimes"}, {"mode": "auto"}),
    "managedBy": ("me", "/x", ""),
    "suspend": ("true", 1),
    "ttlSecondsAfterFinished": (-1,),
    "rounds": (5,),
}


# Edits of BASE as it is stored: what may change while a federation runs, and what is fixed.
EDITS: dict[str, tuple[Any, ...]] = {
    "learner.parameters": ({"alpha": "2"},),
    "learnerGroups.0.replicas": (1, 0),
    "learnerGroups.0.image": ("example.test/learner:2",),
    "learnerGroups": ([{"name": "a"}, {"name": "c", "storage": {}}], [{"name": "b", "storage": {}}, {"name": "a"}]),
    "training.epochs": (3,),
    "protocol.synchronous": ({"roundDeadlineSeconds": 5},),
    "selection": ({"type": "Random", "random": {"fraction": "0.5"}},),
    "termination.maxRounds": (99,),
    "termination.targetMetric": (TARGET,),
    "controller.resources": ({"limits": {"cpu": "2"}},),
    "controller.memoryBudget": ("1Gi",),
    "controller.storage.retain": (True,),
    "controller.storage.size": ("2Gi",),
    "suspend": (True,),
    "ttlSecondsAfterFinished": (60,),
}
FIXED_EDITS: dict[str, tuple[Any, ...]] = {
    "learner.entrypoint": ("other:Class",),
    "learner.partitions": (9,),
    "managedBy": ("example.test/other",),
    "protocol.type": ("SemiSynchronous",),
    "aggregation": ({"rule": "FedAvg", "weighting": "Participants"}, {"deterministic": True}),
    "transport.codec": ("Int8",),
    "controller.storage.storageClassName": ("slow",),
    "controller.storage.existingClaim": ("other",),
    "learnerGroups.0.storage": ({},),
    "learnerGroups.1.storage": ({"size": "2Gi"}, {"storageClassName": "slow"}),
    "learnerGroups": ([{"name": "b"}, {"name": "a"}],),
}


def changed(path: str, value: Any, document: dict[str, Any] = BASE) -> dict[str, Any]:
    document = copy.deepcopy(document)
    *parents, last = path.split(".")
    node: Any = document["spec"]
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    node[last] = value
    return document


def cases(table: dict[str, tuple[Any, ...]]) -> list[Any]:
    pairs = [(path, value) for path, values in table.items() for value in values]
    return [pytest.param(path, value, id=f"{path}={str(value)[:70]}") for path, value in pairs]


def models_take(document: dict[str, Any]) -> bool:
    try:
        parse_federation(document)
    except SpecError:
        return False
    return True


def refusal(server: Any, document: dict[str, Any], method: str = "POST", path: str = STRICT) -> str:
    """The server's words when it refuses the object, empty when it takes it."""
    try:
        server.request(method, path, document)
    except Exception as error:
        if getattr(error, "code", None) not in REFUSED:
            raise
        return str(error)
    return ""


def test_there_are_enough_of_them() -> None:
    sizes = [len(cases(table)) for table in (VALID, INVALID)]
    assert min(sizes) >= 45
    assert len({str(changed(*case.values)) for case in itertools.chain(cases(VALID), cases(INVALID))}) == sum(sizes)


@pytest.mark.parametrize(("path", "value"), cases(VALID))
def test_the_models_take(path: str, value: Any) -> None:
    assert models_take(changed(path, value))


@pytest.mark.parametrize(("path", "value"), cases(INVALID))
def test_the_models_refuse(path: str, value: Any) -> None:
    assert not models_take(changed(path, value))


@pytest.mark.parametrize(("path", "value"), cases(VALID))
def test_the_server_takes(crd_server: Any, path: str, value: Any) -> None:
    assert refusal(crd_server, changed(path, value)) == ""


@pytest.mark.parametrize(("path", "value"), cases(INVALID))
def test_the_server_refuses(crd_server: Any, path: str, value: Any) -> None:
    assert refusal(crd_server, changed(path, value))


@pytest.fixture(scope="module")
def stored(crd_server: Any) -> Any:
    """BASE as a server holds it, defaults and all."""
    collection = STRICT.partition("?")[0]
    yield crd_server.request("POST", collection, {**BASE, "metadata": {"name": "stored"}})
    crd_server.request("DELETE", f"{collection}/stored")


@pytest.mark.parametrize(
    ("path", "value", "takes"),
    [
        pytest.param(*case.values, takes, id=case.id)
        for table, takes in ((EDITS, True), (FIXED_EDITS, False))
        for case in cases(table)
    ],
)
def test_both_judge_an_edit_alike(crd_server: Any, stored: dict[str, Any], path: str, value: Any, takes: bool) -> None:
    edited = changed(path, value, stored)
    by_operator = changed_for_good(parse_federation(stored), parse_federation(edited))
    by_server = refusal(crd_server, edited, "PUT", STRICT.replace("?", "/stored?"))
    assert (not by_operator, not by_server) == (takes, takes)
    if not takes:
        assert by_operator[0].partition(": ")[2] in by_server
