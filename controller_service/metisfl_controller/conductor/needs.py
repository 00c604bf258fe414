"""What a Federation needs of its learners' code; who cannot do it is refused at Join."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.spec import FederationSpec
from metisfl.spec.aggregation import AggregationRule


@dataclass(frozen=True)
class Need:
    """One capability, and what a learner without it is told."""

    capability: pb.Capability.ValueType
    message: str


def needs_of(spec: FederationSpec) -> tuple[Need, ...]:
    """What learners' code must be able to do, by what `spec` asks for."""
    needs = []
    if float(spec.training.proximal_mu):
        needs.append(
            Need(
                pb.CAPABILITY_PROXIMAL_TERM,
                f"training.proximalMu is {spec.training.proximal_mu}, and this learner's class does not add FedProx's "
                "term to its gradients: set proximalMu to 0, or have the class do it and name "
                "Capability.PROXIMAL_TERM in its `supports`, as TorchLearner and NumpyLearner do",
            )
        )
    if spec.aggregation.rule is AggregationRule.SCAFFOLD:
        needs.append(
            Need(
                pb.CAPABILITY_CONTROL_VARIATES,
                "aggregation.rule is Scaffold, and this learner's class does not correct its gradients by control "
                "variates: choose another rule, or have the class do it and name Capability.CONTROL_VARIATES in its "
                "`supports`, as TorchLearner and NumpyLearner do",
            )
        )
    return tuple(needs)
