"""FedAvg: the mean of the learners' models, weighted as `spec.aggregation.weighting` says.

    w_{t+1} = Σ_k p_k · w_k / Σ_k p_k        (McMahan et al. 2017, arXiv 1602.05629, algorithm 1, with p_k = n_k)

Every tensor takes part, trainable or not: running means are averaged like weights, integers are rounded once. Learners
that send updates u_k = w_k − w_t lead to the same mean as w_{t+1} = w_t + Σ_k p_k · u_k / Σ_k p_k.
"""

from __future__ import annotations

from metisfl_controller.aggregation.rules.mean import WeightedMean


class FedAvg(WeightedMean):
    """q_k = p_k and D = Σ p_k in `WeightedMean`."""
