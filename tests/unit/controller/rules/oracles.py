"""Robust rules as their papers write them: plain float64 NumPy over whole vectors, of values (K, d)."""

from __future__ import annotations

import numpy as np


def trimmed_mean(values: np.ndarray, trimmed: int) -> np.ndarray:
    return np.sort(values, axis=0)[trimmed : len(values) - trimmed].mean(axis=0)


def krum_order(updates: np.ndarray, byzantine: int) -> list[int]:
    """Updates by their scores, best first; of equal scores the one that is closer to all, then the first."""
    count = len(updates)
    scores = []
    for k in range(count):
        others = sorted(float(((updates[k] - updates[j]) ** 2).sum()) for j in range(count) if j != k)
        scores.append((sum(others[: max(1, count - byzantine - 2)]), sum(others)))
    return sorted(range(count), key=lambda k: scores[k])


def bulyan(updates: np.ndarray, byzantine: int) -> np.ndarray:
    left, chosen = list(range(len(updates))), []
    while len(chosen) < len(updates) - 2 * byzantine:
        best = left[krum_order(updates[left], byzantine)[0]]
        chosen.append(best)
        left.remove(best)
    return mean_around_median(updates[chosen], len(chosen) - 2 * byzantine)


def mean_around_median(values: np.ndarray, width: int) -> np.ndarray:
    result = np.empty(values.shape[1])
    for i in range(values.shape[1]):
        middle = np.median(values[:, i])
        # Of equally close values the smaller.
        closest = sorted(values[:, i], key=lambda value: (abs(value - middle), value))[:width]
        result[i] = np.mean(closest)
    return result


def geometric_median(updates: np.ndarray, weights: np.ndarray, iterations: int, smoothing: float) -> np.ndarray:
    norms = np.linalg.norm(updates, axis=1)
    shortened = np.minimum(1.0, np.median(norms) / np.maximum(norms, smoothing))
    centre = ((weights / weights.sum() * shortened)[:, None] * updates).sum(axis=0)
    for _ in range(iterations):
        beta = weights / np.maximum(np.linalg.norm(updates - centre, axis=1), smoothing)
        centre = (beta[:, None] * updates).sum(axis=0) / beta.sum()
    return centre


def centered_clip(updates: np.ndarray, radius: float | None, iterations: int) -> np.ndarray:
    centre = np.zeros(updates.shape[1])
    for _ in range(iterations):
        distances = np.linalg.norm(updates - centre, axis=1)
        tau = np.median(distances) if radius is None else radius
        factors = [min(1.0, tau / distance) if distance > 0 else 1.0 for distance in distances]
        centre = centre + (np.array(factors)[:, None] * (updates - centre)).mean(axis=0)
    return centre
