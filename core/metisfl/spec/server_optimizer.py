"""`spec.aggregation.serverOptimizer`: what the mean of the updates does to the global model."""

from __future__ import annotations

from enum import StrEnum

from metisfl.spec.fields import DecimalBelowOne, PositiveDecimalString, SpecModel
from metisfl.spec.rule import Json, Rule


class ServerOptimizerType(StrEnum):
    NONE = "None"
    MOMENTUM = "Momentum"
    ADAM = "Adam"
    YOGI = "Yogi"
    ADAGRAD = "Adagrad"


class ServerOptimizerSpec(SpecModel):
    """What the mean of the updates does to the global model. Optimisers take it for a gradient; they step trainable
    floating-point tensors, and their moments are kept with each version."""

    type: ServerOptimizerType = ServerOptimizerType.NONE
    """None: the mean itself is the next model. Momentum: FedAvgM (arXiv 1909.06335); with momentum 0 a plain server
    learning rate. Adam, Yogi, Adagrad: a step for each parameter by its own history (arXiv 2003.00295)."""

    learning_rate: PositiveDecimalString | None = None
    """How far a step goes. Default: 1 for Momentum, 0.1 for the others."""

    momentum: DecimalBelowOne | None = None
    """For Momentum: how much of the steps before is taken along, 0 to below 1. Default: 0.9."""

    beta1: DecimalBelowOne | None = None
    """For Adam, Yogi and Adagrad: decay of the first moment, 0 to below 1. Default: 0.9."""

    beta2: DecimalBelowOne | None = None
    """For Adam and Yogi: decay of the second moment, 0 to below 1. Default: 0.99."""

    tau: PositiveDecimalString | None = None
    """For Adam, Yogi and Adagrad: by how much a parameter must change in a round for its step to be adapted. Default:
    0.001."""

    @property
    def learning_rate_or_default(self) -> float:
        return float(self.learning_rate or (1 if self.type is ServerOptimizerType.MOMENTUM else "0.1"))

    @property
    def momentum_or_default(self) -> float:
        return float(self.momentum or "0.9")

    @property
    def beta1_or_default(self) -> float:
        return float(self.beta1 or "0.9")

    @property
    def beta2_or_default(self) -> float:
        return float(self.beta2 or "0.99")

    @property
    def tau_or_default(self) -> float:
        return float(self.tau or "0.001")


_ADAPTIVE = ("Adam", "Yogi", "Adagrad")
_TAKERS = {
    "learningRate": ("Momentum", *_ADAPTIVE),
    "momentum": ("Momentum",),
    "beta1": _ADAPTIVE,
    "beta2": ("Adam", "Yogi"),
    "tau": _ADAPTIVE,
}
"""Which types each parameter is for."""


def _rule(parameter: str, types: tuple[str, ...]) -> Rule:
    def holds(optimizer: Json) -> bool:
        return parameter not in optimizer or optimizer.get("type") in types

    return Rule(
        path=("spec", "aggregation", "serverOptimizer"),
        message=f"{parameter} is for {'type' if len(types) == 1 else 'types'} {', '.join(types)} only",
        holds=holds,
        cel=f"!has(self.{parameter}) || self.type in {list(types)!r}",
    )


RULES: tuple[Rule, ...] = tuple(_rule(parameter, types) for parameter, types in _TAKERS.items())
