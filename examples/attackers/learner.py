"""Learners of handwritten digits, of which some attack: to see what an aggregation rule withstands.

Parameters beside those of `DigitsLearner`: `attack` (none, sign-flip, noise) and `strength` (10).
"""

from dataclasses import replace

import numpy as np

from metisfl_learner.examples.digits import DigitsLearner
from metisfl_learner.learner import ParameterError


class AttackingLearner(DigitsLearner):
    """Trains like any other, and then sends something else. What it reports of its evaluation is honest."""

    def __init__(self, context):
        super().__init__(context)
        self.attack = context.parameters.get("attack", "none")
        self.strength = context.number("strength", 10.0)
        self.place = context.partition.index
        if self.attack not in ATTACKS:
            raise ParameterError(f"parameter attack is '{self.attack}'; it must be one of {', '.join(ATTACKS)}")

    def train(self, weights, task):
        result = super().train(weights, task)
        rng = np.random.default_rng([task.seed, self.place])
        forge = ATTACKS[self.attack]
        forged = {
            name: forge(weights[name], trained, self.strength, rng).astype(trained.dtype)
            for name, trained in result.weights.items()
        }
        return replace(result, weights=forged)


def none(received, trained, strength, rng):
    return trained


def sign_flip(received, trained, strength, rng):
    """Away from where training leads, `strength` times as far."""
    return received - strength * (trained - received)


def noise(received, trained, strength, rng):
    """Normal noise with standard deviation `strength` on the received model."""
    return received + strength * rng.standard_normal(trained.shape)


ATTACKS = {"none": none, "sign-flip": sign_flip, "noise": noise}
