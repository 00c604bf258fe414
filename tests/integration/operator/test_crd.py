"""The generated CRD in real API servers: they accept it, and judge the same objects as the models do."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from metisfl.spec import SpecError, parse_federation

COLLECTION = "/apis/metisfl.dev/v1alpha1/namespaces/default/federations"
DRY_RUN = f"{COLLECTION}?dryRun=All"

MINIMAL: dict[str, Any] = {
    "apiVersion": "metisfl.dev/v1alpha1",
    "kind": "Federation",
    "metadata": {"name": "sample"},
    "spec": {"learner": {"entrypoint": "pkg.mod:Class"}, "learnerGroups": [{"name": "silo"}]},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The minimal object with one value set; `…` removes it."""
    document = copy.deepcopy(MINIMAL)
    *parents, last = path.split(".")
    node: Any = document
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return document


def group(**fields: Any) -> dict[str, Any]:
    return {"name": "silo", **fields}


def robust(aggregation: dict[str, Any], learners: int, selection: dict[str, Any] | None = None) -> dict[str, Any]:
    """A rule against attackers, and so many learners."""
    spec = {**MINIMAL["spec"], "aggregation": aggregation, "learnerGroups": [group(replicas=learners)]}
    return {**MINIMAL, "spec": spec | ({"selection": selection} if selection else {})}


VALID = {
    "minimal": MINIMAL,
    "every enum": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "initialModel": {"from": "FirstLearner"},
            "protocol": {"type": "Synchronous", "synchronous": {"quorumPercent": 75, "roundDeadlineSeconds": 30}},
            "selection": {"type": "All", "minLearners": 1},
            "aggregation": {"rule": "FedAvg", "weighting": "TrainingExamples"},
            "transport": {"codec": "Float32", "compression": {"type": "None"}},
            "security": {"tls": {"mode": "Disabled"}},
        },
    ),
    **{f"codec {name}": changed("spec.transport.codec", name) for name in ("BFloat16", "Float16", "Int8", "TopK")},
    "a fraction for TopK": changed("spec.transport", {"codec": "TopK", "topK": {"fraction": "0.001"}}),
    "all of TopK": changed("spec.transport", {"codec": "TopK", "topK": {"fraction": "1"}}),
    "compression": changed("spec.transport.compression", {"type": "Zstd", "level": 9}),
    "target with one bound": changed("spec.termination.targetMetric", {"name": "loss", "atMost": "-0.5"}),
    **{f"rule {name}": changed("spec.aggregation.rule", name) for name in ("FedStride", "FedNova", "FedRec")},
    **{
        f"rule {name} without rounds": changed(
            "spec", {**MINIMAL["spec"], "protocol": {"type": "Asynchronous"}, "aggregation": {"rule": name}}
        )
        for name in ("FedStride", "FedNova", "FedRec")
    },
    "strides": changed("spec.aggregation", {"rule": "FedStride", "fedStride": {"models": 2}}),
    "local momentum": changed("spec.aggregation", {"rule": "FedNova", "fedNova": {"localMomentum": "0.9"}}),
    "clipping": changed("spec.aggregation.clipNorm", "0.05"),
    "server momentum": changed(
        "spec.aggregation.serverOptimizer", {"type": "Momentum", "learningRate": "0.5", "momentum": "0"}
    ),
    **{
        f"server optimiser {name}": changed(
            "spec.aggregation.serverOptimizer", {"type": name, "learningRate": "0.01", "beta1": "0.9", "tau": "0.001"}
        )
        for name in ("Adam", "Yogi", "Adagrad")
    },
    "medians": changed("spec.aggregation", {"rule": "Median", "weighting": "Participants"}),
    "a trimmed mean": changed("spec.aggregation", {"rule": "TrimmedMean", "trimmedMean": {"fraction": "0.49"}}),
    "Krum of enough": robust({"rule": "Krum"}, 5),
    "MultiKrum of enough": robust({"rule": "MultiKrum", "multiKrum": {"byzantine": 3, "select": 2}}, 9),
    "Bulyan of enough": robust({"rule": "Bulyan", "bulyan": {"byzantine": 2}}, 11),
    "TopK for MultiKrum": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "aggregation": {"rule": "MultiKrum"},
            "learnerGroups": [group(replicas=7)],
            "transport": {"codec": "TopK"},
        },
    ),
    "Bulyan without attackers": robust({"rule": "Bulyan", "bulyan": {"byzantine": 0}}, 3),
    "Krum of enough at random": robust({"rule": "Krum"}, 9, {"type": "Random", "random": {"fraction": "0.5"}}),
    "Krum of enough in turn": robust({"rule": "Krum"}, 9, {"type": "RoundRobin", "roundRobin": {"learners": 5}}),
    "Krum and external learners": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "aggregation": {"rule": "Krum"},
            "learnerGroups": [group(), {"name": "hospital", "external": True, "maxLearners": 4}],
        },
    ),
    "a geometric median": changed(
        "spec.aggregation",
        {
            "rule": "GeometricMedian",
            "geometricMedian": {"iterations": 3, "smoothing": "0.001"},
            "weighting": "CompletedBatches",
        },
    ),
    "a centred clip": changed(
        "spec.aggregation", {"rule": "CenteredClip", "centeredClip": {"radius": "0.5", "iterations": 1}}
    ),
    "pod parts are kept": changed(
        "spec.learnerGroups",
        [
            group(
                replicas=2,
                resources={"requests": {"cpu": "50m"}},
                volumes=[{"name": "data", "hostPath": {"path": "/data"}}],
                volumeMounts=[{"name": "data", "mountPath": "/data"}],
                nodeSelector={"site": "a"},
            )
        ],
    ),
    **{
        f"exposed by {expose['type']}": changed(
            "spec", {**MINIMAL["spec"], "controller": {"expose": expose}, "security": {"tls": {"mode": "Auto"}}}
        )
        for expose in (
            {"type": "ClusterIP", "host": "tunnel.example.org", "port": 443},
            {"type": "NodePort", "host": "192.0.2.1", "nodePort": 30443},
            {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"]},
            {"type": "Ingress", "host": "fl.example.org", "ingressClassName": "nginx"},
            {"type": "Gateway", "host": "fl.example.org", "gateway": {"name": "public"}},
        )
    },
    "certificates of cert-manager": changed(
        "spec.security.tls", {"mode": "CertManager", "certManager": {"issuerRef": {"name": "ca"}}}
    ),
    "certificates brought along": changed(
        "spec.security",
        {"tls": {"mode": "Secret", "secret": {"server": "s", "clientIssuer": "c", "serverName": "fl.example.org"}}},
    ),
    "a learner shut out": changed("spec.security", {"revoked": ["hospital-b-0", "a-12"]}),
    "an output in a lake": changed("spec.output", {"url": "abfss://models@site.dfs.core.windows.net/a"}),
    "an output": changed("spec.output", {"url": "s3://bucket/models", "versions": "All", "secretRef": {"name": "s3"}}),
    "an output to a folder": changed("spec.output", {"url": "file:///models"}),
    "an external group": changed("spec.learnerGroups", [{"name": "hospital", "external": True, "maxLearners": 4}]),
    "external learners count": {
        **changed("spec.learnerGroups", [group(), {"name": "hospital", "external": True, "maxLearners": 4}]),
        "spec": {
            "learner": {"entrypoint": "m:C", "partitions": 5},
            "selection": {"minLearners": 5},
            "learnerGroups": [group(), {"name": "hospital", "external": True, "maxLearners": 4}],
        },
    },
    "one group idle": changed("spec.learnerGroups", [group(), {"name": "later", "replicas": 0}]),
    "room for more learners": changed("spec.learner.partitions", 8),
    "longest names": {
        **changed("spec.learnerGroups", [{"name": "g" * 11}]),
        "metadata": {"name": "f" * 40},
    },
    "a random share": changed("spec.selection", {"type": "Random", "random": {"fraction": "0.25", "seed": 7}}),
    "in turn": changed("spec.selection", {"type": "RoundRobin", "roundRobin": {"learners": 3}}),
    "the worst of some": changed(
        "spec.selection",
        {"type": "PowerOfChoice", "powerOfChoice": {"candidates": 4, "learners": 4, "metric": "train_loss"}},
    ),
    "some of each site": changed("spec.selection", {"type": "PerGroup", "perGroup": {"learners": 1}}),
    "an evaluator": changed("spec.learnerGroups", [group(), {"name": "judge", "role": "Evaluator", "replicas": 3}]),
    "target by evaluators": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "learnerGroups": [group(), {"name": "judge", "role": "Evaluator"}],
            "evaluation": {"everyRounds": 2, "evaluatorWaitSeconds": 0},
            "termination": {
                "targetMetric": {"name": "accuracy", "atLeast": "0.9", "patience": 3, "source": "Evaluators"},
                "plateau": {"metric": "loss", "goal": "Minimise", "minDelta": "0.01", "source": "Evaluators"},
                "tooFewLearnersSeconds": 600,
            },
        },
    ),
    "a plateau": changed("spec.termination.plateau", {"metric": "accuracy", "goal": "Maximise", "rounds": 3}),
    "shares for those that train": changed(
        "spec",
        {
            "learner": {"entrypoint": "m:C", "partitions": 1},
            "learnerGroups": [group(), {"name": "judge", "role": "Evaluator", "replicas": 5}],
        },
    ),
    "weighed by batches": changed("spec.aggregation.weighting", "CompletedBatches"),
    "all weigh the same": changed("spec.aggregation.weighting", "Participants"),
    "parameters": changed("spec.learner.parameters", {"alpha": "0.5"}),
    "over-selection": changed("spec.protocol.synchronous", {"overSelect": 2, "lateUpdates": "NextRound"}),
    "paced rounds": changed(
        "spec.protocol", {"type": "SemiSynchronous", "semiSynchronous": {"lambda": "0.5", "recomputeEveryRounds": 4}}
    ),
    "no rounds": changed("spec.protocol.type", "Asynchronous"),
    "buffers of differences in a narrow codec": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "protocol": {"type": "Asynchronous", "asynchronous": {"bufferSize": 4, "mixing": "1", "maxStaleness": 5}},
            "transport": {"codec": "Int8"},
        },
    ),
    **{
        f"staleness {staleness['type']}": changed(
            "spec.protocol", {"type": "Asynchronous", "asynchronous": {"staleness": staleness}}
        )
        for staleness in (
            {"type": "Constant"},
            {"type": "Polynomial", "exponent": "0.5"},
            {"type": "Hinge", "a": "10", "b": 4},
        )
    },
    "an exponent of the default staleness": changed(
        "spec.protocol", {"type": "Asynchronous", "asynchronous": {"staleness": {"exponent": "1"}}}
    ),
    "control variates": {
        **MINIMAL,
        "spec": {**MINIMAL["spec"], "aggregation": {"rule": "Scaffold"}, "training": {"learningRate": "0.001"}},
    },
    "steps near the global model": changed("spec.training", {"steps": 10, "proximalMu": "0.1"}),
}

# Judged by the schema alone, so by every API server that serves apiextensions.k8s.io/v1.
INVALID = {
    "unknown rule": changed("spec.aggregation.rule", "FedSum"),
    "all is trimmed": changed("spec.aggregation", {"rule": "TrimmedMean", "trimmedMean": {"fraction": "0.5"}}),
    "no iterations": changed("spec.aggregation", {"rule": "CenteredClip", "centeredClip": {"iterations": 0}}),
    "no radius": changed("spec.aggregation", {"rule": "CenteredClip", "centeredClip": {"radius": "0"}}),
    "unknown protocol": changed("spec.protocol.type", "Streaming"),
    "unknown codec": changed("spec.transport.codec", "Int4"),
    "a role that is none": changed("spec.learnerGroups", [group(role="Judge")]),
    "a plateau without a goal": changed("spec.termination.plateau", {"metric": "loss"}),
    "no patience": changed("spec.termination.targetMetric", {"name": "a", "atLeast": "1", "patience": 0}),
    "nobody at random": changed("spec.selection", {"type": "Random", "random": {"fraction": "0"}}),
    "nobody in turn": changed("spec.selection", {"type": "RoundRobin", "roundRobin": {"learners": 0}}),
    "nothing of TopK": changed("spec.transport", {"codec": "TopK", "topK": {"fraction": "0.000"}}),
    "more than all of TopK": changed("spec.transport", {"codec": "TopK", "topK": {"fraction": "1.01"}}),
    "unknown compression": changed("spec.transport.compression.type", "Gzip"),
    "compression beyond its levels": changed("spec.transport.compression", {"type": "Zstd", "level": 20}),
    "TLS that is not built": changed("spec.security.tls.mode", "Manual"),
    "a lifetime too short to renew in": changed("spec.security.tls.certificateSeconds", 299),
    "a revoked learner without an ordinal": changed("spec.security.revoked", ["a"]),
    "a learner revoked twice": changed("spec.security.revoked", ["a-0", "a-0"]),
    "a bound of nothing": changed("spec.aggregation.clipNorm", "0.00"),
    "strides of nothing": changed("spec.aggregation", {"rule": "FedStride", "fedStride": {"models": 0}}),
    "a decay of 1": changed("spec.aggregation.serverOptimizer", {"type": "Adam", "beta1": "1"}),
    "no step": changed("spec.aggregation.serverOptimizer", {"type": "Momentum", "learningRate": "0"}),
    "no time to train": changed("spec.protocol", {"type": "SemiSynchronous", "semiSynchronous": {"lambda": "0.0"}}),
    "an empty buffer": changed("spec.protocol", {"type": "Asynchronous", "asynchronous": {"bufferSize": 0}}),
    "mixing of nothing": changed("spec.protocol", {"type": "Asynchronous", "asynchronous": {"mixing": "0"}}),
    "quorum above 100": changed("spec.protocol.synchronous", {"quorumPercent": 101}),
    "no entrypoint": changed("spec.learner.entrypoint", ...),
    "entrypoint without class": changed("spec.learner.entrypoint", "module"),
    "no groups": changed("spec.learnerGroups", []),
    "group name in capitals": changed("spec.learnerGroups", [{"name": "Silo"}]),
    "two groups of one name": changed("spec.learnerGroups", [group(), group()]),
    "negative replicas": changed("spec.learnerGroups", [group(replicas=-1)]),
    "a float": changed("spec.training.learningRate", 0.05),
    "a number as text": changed("spec.training.epochs", "3"),
    "no rounds": changed("spec.termination.maxRounds", 0),
    "a decimal that is none": changed("spec.training.learningRate", "fast"),
    "a parameter that is no text": changed("spec.learner.parameters", {"alpha": 1}),
    "an output without a place": changed("spec.output", {"versions": "All"}),
    "an output by a protocol that is not built": changed("spec.output", {"url": "ftp://host/models"}),
    "an output with a password in its URL": changed("spec.output", {"url": "s3://name:word@bucket/models"}),
    "an output with a secret in its URL": changed("spec.output", {"url": "s3://bucket/models?sig=x"}),
    "no spec": changed("spec", ...),
}

# Rules across fields, which API servers judge from 1.25 on.
INVALID_BY_RULE = {
    "a mode without its member": changed("spec.security.tls.mode", "Secret"),
    "a member of another mode": changed("spec.security.tls.certManager", {"issuerRef": {"name": "ca"}}),
    "both bounds": changed("spec.termination.targetMetric", {"name": "a", "atLeast": "1", "atMost": "2"}),
    "no bound": changed("spec.termination.targetMetric", {"name": "a"}),
    "a member of another protocol": changed("spec.protocol", {"type": "Asynchronous", "synchronous": {}}),
    "a member of the default's protocol": changed("spec.protocol.asynchronous", {}),
    "an exponent for Hinge": changed(
        "spec.protocol", {"type": "Asynchronous", "asynchronous": {"staleness": {"type": "Hinge", "exponent": "1"}}}
    ),
    "a hinge for Polynomial": changed(
        "spec.protocol", {"type": "Asynchronous", "asynchronous": {"staleness": {"a": "1", "b": 2}}}
    ),
    "late differences": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "protocol": {"synchronous": {"lateUpdates": "NextRound"}},
            "transport": {"codec": "BFloat16"},
        },
    ),
    "mixing of differences": changed(
        "spec", {**MINIMAL["spec"], "protocol": {"type": "Asynchronous"}, "transport": {"codec": "TopK"}}
    ),
    "an order of arrivals": changed(
        "spec", {**MINIMAL["spec"], "protocol": {"type": "Asynchronous"}, "aggregation": {"deterministic": True}}
    ),
    "differences to remember": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "protocol": {"type": "Asynchronous", "asynchronous": {"bufferSize": 2}},
            "aggregation": {"rule": "FedRec"},
        },
    ),
    "selection without rounds": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "protocol": {"type": "Asynchronous"},
            "selection": {"type": "RoundRobin", "roundRobin": {"learners": 1}},
        },
    ),
    **{
        f"{part} for paced learners": changed(
            "spec", {**MINIMAL["spec"], "protocol": {"type": "SemiSynchronous"}, "training": {part: 3}}
        )
        for part in ("epochs", "steps")
    },
    "topK without its codec": changed("spec.transport", {"codec": "Int8", "topK": {"fraction": "0.01"}}),
    "topK with the default codec": changed("spec.transport.topK", {"fraction": "0.01"}),
    "Scaffold with weights that change": changed(
        "spec.aggregation", {"rule": "Scaffold", "weighting": "CompletedBatches"}
    ),
    "Scaffold without a learning rate": {
        **MINIMAL,
        "spec": {**MINIMAL["spec"], "aggregation": {"rule": "Scaffold"}, "training": {"learningRate": "0.00"}},
    },
    "Scaffold with late updates": {
        **MINIMAL,
        "spec": {
            **MINIMAL["spec"],
            "aggregation": {"rule": "Scaffold"},
            "protocol": {"synchronous": {"lateUpdates": "NextRound"}},
        },
    },
    "epochs and steps": changed("spec.training", {"epochs": 1, "steps": 10}),
    "fedStride without its rule": changed("spec.aggregation.fedStride", {"models": 2}),
    "fedNova without its rule": changed("spec.aggregation", {"rule": "FedStride", "fedNova": {"localMomentum": "0"}}),
    "fedRec without its rule": changed("spec.aggregation.fedRec", {"recomputeEvery": 5}),
    "krum without its rule": changed("spec.aggregation", {"rule": "Median", "krum": {"byzantine": 0}}),
    "a median with an optimiser": changed(
        "spec.aggregation", {"rule": "Median", "serverOptimizer": {"type": "Momentum"}}
    ),
    "clipped updates of a median": changed("spec.aggregation", {"rule": "GeometricMedian", "clipNorm": "1"}),
    "weights for a median": changed("spec.aggregation", {"rule": "Median", "weighting": "CompletedBatches"}),
    "Krum of too few": robust({"rule": "Krum"}, 4),
    "MultiKrum of too few": robust({"rule": "MultiKrum", "multiKrum": {"byzantine": 3}}, 8),
    "Bulyan of too few": robust({"rule": "Bulyan"}, 6),
    **{
        f"TopK for {rule}": changed(
            "spec",
            {
                **MINIMAL["spec"],
                "aggregation": {"rule": rule},
                "learnerGroups": [group(replicas=7)],
                "transport": {"codec": "TopK"},
            },
        )
        for rule in ("Median", "TrimmedMean", "Bulyan")
    },
    "Krum of too few, the rest evaluators": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "aggregation": {"rule": "Krum"},
            "learnerGroups": [group(replicas=4), {"name": "judge", "role": "Evaluator", "replicas": 1}],
        },
    ),
    "Krum of too few at random": robust({"rule": "Krum"}, 8, {"type": "Random", "random": {"fraction": "0.5"}}),
    "Krum of too few in turn": robust({"rule": "Krum"}, 9, {"type": "RoundRobin", "roundRobin": {"learners": 4}}),
    "Krum of too few by choice": robust(
        {"rule": "Krum"}, 9, {"type": "PowerOfChoice", "powerOfChoice": {"candidates": 9, "learners": 4}}
    ),
    "a learning rate without optimiser": changed("spec.aggregation.serverOptimizer", {"learningRate": "1"}),
    "momentum for Adam": changed("spec.aggregation.serverOptimizer", {"type": "Adam", "momentum": "0.9"}),
    "beta1 for Momentum": changed("spec.aggregation.serverOptimizer", {"type": "Momentum", "beta1": "0.9"}),
    "beta2 for Adagrad": changed("spec.aggregation.serverOptimizer", {"type": "Adagrad", "beta2": "0.9"}),
    "tau for Momentum": changed("spec.aggregation.serverOptimizer", {"type": "Momentum", "tau": "0.1"}),
    "level without compression": changed("spec.transport.compression.level", 3),
    "evaluators alone": changed("spec.learnerGroups", [group(role="Evaluator")]),
    "more wanted than there are that train": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "selection": {"minLearners": 2},
            "learnerGroups": [group(), {"name": "judge", "role": "Evaluator"}],
        },
    ),
    "target by evaluators that are not there": changed(
        "spec.termination.targetMetric", {"name": "a", "atLeast": "1", "source": "Evaluators"}
    ),
    "plateau by evaluators that are not there": changed(
        "spec.termination.plateau", {"metric": "a", "goal": "Maximise", "source": "Evaluators"}
    ),
    "Random without its member": changed("spec.selection.type", "Random"),
    "RoundRobin without its member": changed("spec.selection.type", "RoundRobin"),
    "PowerOfChoice without its member": changed("spec.selection.type", "PowerOfChoice"),
    "PerGroup without its member": changed("spec.selection.type", "PerGroup"),
    "nobody to select for": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "protocol": {"type": "Asynchronous"},
            "selection": {"type": "RoundRobin", "roundRobin": {"learners": 1}},
        },
    ),
    "a member of another selection": changed("spec.selection.random", {"fraction": "0.5"}),
    "fewer candidates than learners": changed(
        "spec.selection", {"type": "PowerOfChoice", "powerOfChoice": {"candidates": 2, "learners": 3}}
    ),
    "no learners": changed("spec.learnerGroups", [group(replicas=0)]),
    "more wanted than there are": changed("spec.selection.minLearners", 2),
    "a node port on no host": changed("spec.controller.expose", {"type": "NodePort"}),
    "a gateway without its name": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "controller": {"expose": {"type": "Gateway", "host": "fl.example.org"}},
            "security": {"tls": {"mode": "Auto"}},
        },
    ),
    "an ingress without TLS": changed(
        "spec",
        {
            **MINIMAL["spec"],
            "controller": {"expose": {"type": "Ingress", "host": "fl.example.org"}},
            "security": {"tls": {"mode": "Disabled"}},
        },
    ),
    "an ingress class of a load balancer": changed(
        "spec.controller.expose", {"type": "LoadBalancer", "ingressClassName": "nginx"}
    ),
    "a node port of the cluster's own address": changed("spec.controller.expose.nodePort", 30443),
    "an external group without bound": changed("spec.learnerGroups", [group(external=True)]),
    "a bound without an external group": changed("spec.learnerGroups", [group(maxLearners=2)]),
    "an external group with replicas": changed("spec.learnerGroups", [group(external=True, maxLearners=2, replicas=3)]),
    "an external group with a pod's image": changed(
        "spec.learnerGroups", [group(external=True, maxLearners=2, image="mine:1")]
    ),
    "fewer shares than external learners": changed(
        "spec",
        {
            "learner": {"entrypoint": "m:C", "partitions": 2},
            "learnerGroups": [{"name": "hospital", "external": True, "maxLearners": 3}],
        },
    ),
    "fewer shares than learners": {
        **changed("spec.learnerGroups", [group(replicas=3)]),
        "spec": {
            "learner": {"entrypoint": "m:C", "partitions": 2},
            "learnerGroups": [group(replicas=3)],
        },
    },
    "the controller's own name": changed("spec.learnerGroups", [{"name": "controller"}]),
    "name too long": {**MINIMAL, "metadata": {"name": "f" * 41}},
    "name with a dot": {**MINIMAL, "metadata": {"name": "a.b"}},
    "names too long together": {
        **changed("spec.learnerGroups", [{"name": "g" * 12}]),
        "metadata": {"name": "f" * 40},
    },
}


def refusal(server: Any, document: dict[str, Any], method: str = "POST", path: str = DRY_RUN) -> str:
    """The server's message when it refuses the object, empty when it takes it."""
    try:
        server.request(method, path, document)
    except Exception as error:
        if getattr(error, "code", None) != 422:
            raise
        return str(error)
    return ""


@pytest.mark.parametrize("case", VALID)
def test_models_take_what_is_valid(case: str) -> None:
    parse_federation(VALID[case])


@pytest.mark.parametrize("case", INVALID | INVALID_BY_RULE)
def test_models_refuse_what_is_invalid(case: str) -> None:
    with pytest.raises(SpecError):
        parse_federation((INVALID | INVALID_BY_RULE)[case])


@pytest.mark.parametrize("case", VALID)
def test_the_api_server_takes_what_is_valid(control_plane: Any, case: str) -> None:
    assert refusal(control_plane, VALID[case]) == ""


@pytest.mark.parametrize("case", INVALID)
def test_the_api_server_refuses_what_is_invalid(control_plane: Any, case: str) -> None:
    assert refusal(control_plane, INVALID[case])


@pytest.mark.parametrize("case", VALID)
def test_a_server_with_cel_takes_what_is_valid(crd_server: Any, case: str) -> None:
    assert refusal(crd_server, VALID[case]) == ""


@pytest.mark.parametrize("case", INVALID | INVALID_BY_RULE)
def test_a_server_with_cel_refuses_what_is_invalid(crd_server: Any, case: str) -> None:
    assert refusal(crd_server, (INVALID | INVALID_BY_RULE)[case])


def test_a_server_with_cel_says_which_rule_is_broken(crd_server: Any) -> None:
    said = refusal(crd_server, INVALID_BY_RULE["both bounds"])
    assert "spec.termination.targetMetric" in said
    assert "set exactly one of atLeast and atMost" in said


def test_partitions_cannot_change(crd_server: Any) -> None:
    created = crd_server.request("POST", COLLECTION, changed("spec.learner.partitions", 8))
    path = f"{COLLECTION}/sample"
    try:
        created["spec"]["learner"]["partitions"] = 9
        assert "partitions is fixed" in refusal(crd_server, created, "PUT", path)
        del created["spec"]["learner"]["partitions"]
        assert "partitions is fixed" in refusal(crd_server, created, "PUT", path)
        created["spec"]["learner"] |= {"partitions": 8, "parameters": {"alpha": "1"}}
        assert refusal(crd_server, created, "PUT", path) == ""
    finally:
        crd_server.request("DELETE", path)


def test_defaults_are_those_of_the_models(control_plane: Any) -> None:
    document = changed("spec.protocol", {"synchronous": {}})
    stored = control_plane.request("POST", DRY_RUN, document)
    assert stored["spec"]["termination"] == {"maxRounds": 10}
    # A default inside a member of a union would appear in objects whose type names another member.
    assert stored["spec"]["protocol"] == {"type": "Synchronous", "synchronous": {}}
    assert parse_federation(stored).spec == parse_federation(document).spec


def test_pod_parts_come_back_as_they_were_written(control_plane: Any) -> None:
    stored = control_plane.request("POST", DRY_RUN, VALID["pod parts are kept"])
    (written,) = VALID["pod parts are kept"]["spec"]["learnerGroups"]
    (kept,) = stored["spec"]["learnerGroups"]
    assert {key: kept[key] for key in written} == written


def test_columns_show_what_people_look_for(control_plane: Any) -> None:
    path = f"{COLLECTION}/columns"
    control_plane.request("POST", COLLECTION, {**MINIMAL, "metadata": {"name": "columns"}})
    try:
        condition = {"observedGeneration": 1, "lastTransitionTime": "2024-05-01T10:00:00Z", "message": "as it is"}
        control_plane.request(
            "PATCH",
            f"{path}/status",
            {
                "status": {
                    "currentRound": 3,
                    "globalModel": {"version": 0, "sha256": "0" * 64, "location": "models/0.safetensors"},
                    "learners": {"desired": 4, "ready": 3, "participating": 3, "summary": "3/4"},
                    "metrics": [{"name": "accuracy", "value": "0.93"}, {"name": "loss", "value": "0.2"}],
                    "conditions": [
                        {**condition, "type": "Complete", "status": "False", "reason": "InProgress"},
                        {**condition, "type": "Progressing", "status": "True", "reason": "Training"},
                    ],
                }
            },
            "application/merge-patch+json",
        )
        table = table_of(control_plane)
        shown = dict(zip((c["name"] for c in table["columnDefinitions"]), table["rows"][0]["cells"], strict=True))
        del shown["Age"]
        assert shown == {
            "Name": "columns",
            "Complete": "False",
            "Round": 3,
            "Rounds": 10,
            "Learners": "3/4",
            "Metric": "0.93",
            "Protocol": "Synchronous",
            "Rule": "FedAvg",
            "Reason": "Training",
        }
        wide = [c["name"] for c in table["columnDefinitions"] if c["priority"] == 1]
        assert wide == ["Protocol", "Rule", "Reason"]
    finally:
        control_plane.request("DELETE", path)


def table_of(server: Any) -> Any:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    return server.request("GET", COLLECTION, accept=accept)


def test_short_name_and_category_are_served(control_plane: Any) -> None:
    resources = control_plane.request("GET", "/apis/metisfl.dev/v1alpha1")["resources"]
    (federations,) = [r for r in resources if r["name"] == "federations"]
    assert federations["shortNames"] == ["mfed"]
    assert federations["categories"] == ["metisfl"]
    assert {r["name"] for r in resources} == {"federations", "federations/status"}
