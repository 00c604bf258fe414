"""FedNova: normalised averaging, for learners that take different numbers of local steps.

    w_{t+1} = w_t + τ_eff · Σ_k p_k · u_k / (P · a_k),    τ_eff = Σ_k p_k · τ_k / P,    P = Σ_k p_k
                                                (Wang et al. 2020, arXiv 2007.07481)

u_k = w_k − w_t is a learner's update and τ_k its local steps. a_k = ‖a_k‖₁ is by how much these steps add up its
gradients: τ_k for plain SGD; with local momentum ρ it is (τ_k − ρ · (1 − ρ^τ_k) / (1 − ρ)) / (1 − ρ). FedAvg lets those
who take more steps pull the model towards their own optimum; here each direction counts by p_k alone, and the mean
number of steps says how far to go. With equal τ_k and without momentum it is FedAvg.

In the terms of `WeightedMean`: q_k = p_k / a_k and D = P / τ_eff = P² / Σ_k p_k · τ_k. With momentum, τ_eff is
Σ_k p_k · a_k / P, as the paper takes it when all learners use the same optimiser.
"""

from __future__ import annotations

from metisfl.wire.codecs import Encoding
from metisfl_controller.aggregation.rule import Staged
from metisfl_controller.aggregation.rules.mean import PLAIN, MeanOptions, WeightedMean


class FedNova(WeightedMean):
    """Each upload's `steps` are its τ_k, at least 1."""

    def __init__(self, encoding: Encoding, options: MeanOptions = PLAIN, *, local_momentum: float = 0.0) -> None:
        """`local_momentum`: ρ of the learners' SGD, 0 ≤ ρ < 1."""
        super().__init__(encoding, options)
        self.needs_base = True
        self._momentum = local_momentum
        self._weighted_steps = 0.0

    def reset(self) -> None:
        super().reset()
        self._weighted_steps = 0.0

    def count(self, upload: Staged) -> None:
        super().count(upload)
        self._weighted_steps += upload.weight * self._accumulated(upload.steps)

    def update_weight(self, upload: Staged) -> float:
        return upload.weight / self._accumulated(upload.steps)

    def divisor(self) -> float:
        return self._total * self._total / self._weighted_steps

    def _accumulated(self, steps: int) -> float:
        """a_k: the sum of the coefficients that each step's gradient has in the update."""
        if steps < 1:
            raise ValueError(f"FedNova divides updates by their local steps, and one reports {steps}")
        rho = self._momentum
        return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
