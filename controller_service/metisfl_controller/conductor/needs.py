"""What a Federation needs of its learners' code; who cannot do it is refused at Join."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.spec import FederationSpec


@dataclass(frozen=True)
class Need:
    """One capability, and what a learner without it is told."""

    capability: pb.Capability.ValueType
    message: str


def needs_of(spec: FederationSpec) -> tuple[Need, ...]:
    """What learners' code must be able to do, by what `spec` asks for."""
    if not float(spec.training.proximal_mu):
        return ()
    return (
        Need(
            pb.CAPABILITY_PROXIMAL_TERM,
            f"training.proximalMu is {spec.training.proximal_mu}, and this learner's class does not add FedProx's term "
            "to its gradients: set proximalMu to 0, or have the class do it and name Capability.PROXIMAL_TERM in its "
            "`supports`, as TorchLearner and NumpyLearner do",
        ),
    )
