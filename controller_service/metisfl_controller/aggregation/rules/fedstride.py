"""FedStride: FedAvg with a bound on how many models are in memory and folded in one pass.

    w_{t+1} = Σ_k p_k · w_k / Σ_k p_k, summed over strides of at most m models

The same model as FedAvg's, to the bit: sums do not depend on how uploads are divided over passes. It is for models so
large that only a few of them fit in memory at once; m = 1 holds one upload at a time, and reads the sums once for each.
After MetisFL's rule of this name (Stripelis et al. 2023, arXiv 2311.00334, "stride length").
"""

from __future__ import annotations

from metisfl.wire.codecs import Encoding
from metisfl_controller.aggregation.rules.fedavg import FedAvg
from metisfl_controller.aggregation.rules.mean import PLAIN, MeanOptions


class FedStride(FedAvg):
    def __init__(self, encoding: Encoding, options: MeanOptions = PLAIN, *, models: int = 1) -> None:
        """`models`: at most so many are folded in one pass."""
        super().__init__(encoding, options)
        self.models_per_pass = models
