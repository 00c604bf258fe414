"""FedAdagrad, FedAdam and FedYogi (Reddi et al. 2021, arXiv 2003.00295, algorithm 2).

    m_t = β1 · m_{t−1} + (1 − β1) · Δ_t,                    m_0 = 0
    v_t = v_{t−1} + Δ_t²                                    Adagrad
    v_t = β2 · v_{t−1} + (1 − β2) · Δ_t²                    Adam
    v_t = v_{t−1} − (1 − β2) · Δ_t² · sign(v_{t−1} − Δ_t²)  Yogi,        v_0 = τ²
    x_{t+1} = x_t + η · m_t / (√v_t + τ)

for each parameter on its own, without bias correction, as in the paper. Parameters: η `learningRate` (0.1), β1 `beta1`
(0.9), β2 `beta2` (0.99), τ `tau` (0.001), how far a parameter must move in a round for its step to be adapted. Each
keeps two moments: 8 bytes a parameter.
"""

from __future__ import annotations

from metisfl_controller.aggregation.kernels.steps import ADAGRAD, ADAM, YOGI
from metisfl_controller.aggregation.optimizers.optimizer import Step


def adagrad(learning_rate: float, beta1: float, tau: float) -> Step:
    """η > 0, 0 ≤ β1 < 1, τ > 0."""
    return Step(ADAGRAD, _initial(tau), learning_rate, beta1, tau=tau)


def adam(learning_rate: float, beta1: float, beta2: float, tau: float) -> Step:
    """η > 0, 0 ≤ β1, β2 < 1, τ > 0."""
    return Step(ADAM, _initial(tau), learning_rate, beta1, beta2, tau)


def yogi(learning_rate: float, beta1: float, beta2: float, tau: float) -> Step:
    """η > 0, 0 ≤ β1, β2 < 1, τ > 0."""
    return Step(YOGI, _initial(tau), learning_rate, beta1, beta2, tau)


def _initial(tau: float) -> dict[str, float]:
    return {"first_moment": 0.0, "second_moment": tau * tau}
