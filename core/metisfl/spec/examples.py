"""An example for each part of a spec: `kubectl explain mfed.spec.protocol` and docs/api.md show it.

One line of YAML each, and a test puts every one of them into a Federation that is then valid.
"""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, str] = {
    "learner": "{entrypoint: 'my_learner:MyLearner', sourceRef: {name: my-code}, parameters: {alpha: '0.5'}}",
    "initialModel": "{from: FirstLearner}",
    "training": "{epochs: 2, batchSize: 64, learningRate: '0.01'}",
    "evaluation": "{everyRounds: 5}",
    "protocol": "{type: Synchronous, synchronous: {quorumPercent: 80, roundDeadlineSeconds: 600}}",
    "selection": "{type: Random, random: {fraction: '0.5', seed: 7}, minLearners: 2}",
    "aggregation": "{rule: FedAvg, serverOptimizer: {type: Adam, learningRate: '0.1'}}",
    "transport": "{codec: Int8, compression: {type: Zstd, level: 3}}",
    "termination": "{maxRounds: 100, targetMetric: {name: accuracy, atLeast: '0.97'}}",
    "learnerGroups": "[{name: silo-a, replicas: 4, resources: {limits: {nvidia.com/gpu: 1}}, tolerations: "
    "[{key: nvidia.com/gpu, operator: Exists}]}]",
    "controller": "{resources: {limits: {cpu: 4, memory: 8Gi}}, memoryBudget: 6Gi, storage: {size: 50Gi}}",
    "controller.storage": "{existingClaim: digits-controller}",
    "security": "{tls: {mode: Auto}}",
    "output": "{url: 's3://models/digits', versions: All, secretRef: {name: s3}}",
}


def explained(path: str, description: str) -> str:
    """The description of the part of a spec at `path`, with its example if it has one."""
    example = EXAMPLES.get(path)
    return f"{description} For example: {example}".strip() if example else description
