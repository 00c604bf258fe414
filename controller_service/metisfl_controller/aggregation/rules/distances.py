"""Distances between updates, from their inner products; pure NumPy on small matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def squared_distances(products: Floats) -> Floats:
    """‖u_i − u_j‖² of every two updates, (K, K), from their inner products (K, K); 0 on the diagonal.

    Infinite for an update whose norm left the range of float64. The rounding error is 2^-53 of the squared norms
    and not of the distance, which is why updates are taken relative to the model they started from.
    """
    norms = np.diagonal(products)
    with np.errstate(invalid="ignore"):
        distances = norms[:, None] + norms[None, :] - 2 * products
    distances = np.maximum(np.where(np.isnan(distances), np.inf, distances), 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


class Span:
    """Points v = Σ_k c_k · u_k in the span of K updates, known by their coefficients c (K,): distances need the inner
    products only, since ‖u_k − v‖² = G_kk − 2 · (G c)_k + cᵀ G c."""

    def __init__(self, products: Floats) -> None:
        """`products`: G (K, K)."""
        self.within = np.isfinite(np.diagonal(products))
        """(K,): updates whose norm is in the range of float64; the others must have coefficient 0."""
        self._products = np.where(self.within[:, None] & self.within[None, :], products, 0.0)

    def __len__(self) -> int:
        return len(self.within)

    def distances(self, coefficients: Floats) -> Floats:
        """‖u_k − v‖ of each update, (K,); infinite for those that are not `within`."""
        along = self._products @ coefficients
        squared = np.diagonal(self._products) - 2 * along + coefficients @ along
        return np.where(self.within, np.sqrt(np.maximum(squared, 0.0)), np.inf)
