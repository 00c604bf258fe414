"""Server momentum (FedAvgM, Hsu et al. 2019, arXiv 1909.06335), and with momentum 0 a plain server learning rate.

    m_t = β · m_{t−1} + Δ_t,        x_{t+1} = x_t + η · m_t,        m_0 = 0

Parameters: η `learningRate` (1), β `momentum` (0.9). Keeps one moment: 4 bytes a parameter.
"""

from __future__ import annotations

from metisfl_controller.aggregation.kernels.steps import MOMENTUM
from metisfl_controller.aggregation.optimizers.optimizer import Step


def momentum(learning_rate: float, beta: float) -> Step:
    """η > 0, 0 ≤ β < 1."""
    return Step(MOMENTUM, {"momentum": 0.0}, learning_rate, beta)
