"""Dividing a data set among learners, deterministically: every learner computes the same division and takes its share.

All functions return sorted indices into the data set. The random streams come from `numpy.random.RandomState`, whose
streams NumPy guarantees never to change (NEP 19); learners with different NumPy versions must agree on who has what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]

_DRAWS = 50


class PartitionError(ValueError):
    """A data set that cannot be divided as asked."""


@dataclass(frozen=True)
class Split:
    """A data set in two: what may be trained on, and what is held out. Disjoint, and together everything."""

    train: Indices
    test: Indices


def held_out_split(labels: ArrayLike, fraction: float = 0.2, seed: int = 0) -> Split:
    """Hold out a stratified test set, before any partitioning, so that no learner ever trains on it.

    `labels` has one class label an example. The test set has round(fraction × examples) of them, and of each class its
    proportional share, rounded up or down (largest remainders get the rest). Raises PartitionError when one side would
    be empty.
    """
    members = _members(labels)
    total = sum(len(m) for m in members)
    wanted = round(fraction * total)
    if not 0 < fraction < 1 or not 0 < wanted < total:
        raise PartitionError(f"a fraction of {fraction} of {total} examples leaves one side of the split empty")
    random = np.random.RandomState(seed)
    sizes = _apportion(wanted, np.array([len(m) for m in members], dtype=np.float64))
    test = np.concatenate([random.permutation(m)[:size] for m, size in zip(members, sizes, strict=True)])
    mask = np.zeros(total, dtype=bool)
    mask[test] = True
    return Split(train=np.flatnonzero(~mask), test=np.flatnonzero(mask))


def iid(examples: int, index: int, count: int, seed: int = 0, weights: Sequence[float] | None = None) -> Indices:
    """Share `index` of `count` of a shuffled data set: every learner's data has the same distribution.

    Shares are equal, or proportional to `weights`, one a learner, for sites of different size. Raises PartitionError
    when a share would be empty.
    """
    _check_place(index, count, examples)
    shares = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    if shares.shape != (count,) or not np.all(np.isfinite(shares)) or np.any(shares <= 0):
        raise PartitionError(f"weights must be {count} positive numbers, one a learner: {weights}")
    sizes = _at_least(_apportion(examples, shares), 1)
    ends = np.cumsum(sizes)
    order = np.random.RandomState(seed).permutation(examples)
    return np.sort(order[ends[index] - sizes[index] : ends[index]])


def dirichlet(labels: ArrayLike, index: int, count: int, alpha: float, seed: int = 0, minimum: int = 1) -> Indices:
    """Share `index` of `count` with skewed classes: each class is divided in proportions drawn from Dirichlet(alpha).

    Small `alpha` gives each learner few classes and learners of very different size, large `alpha` approaches IID
    (Hsu, Qi and Brown 2019, arXiv 1909.06335; Yurochkin et al. 2019, arXiv 1905.12022). Drawn again until every share
    has at least `minimum` examples; if chance does not bring that about, the largest shares give some of theirs.
    Raises PartitionError when there are fewer than count × minimum examples.
    """
    members = _members(labels)
    total = sum(len(m) for m in members)
    _check_place(index, count, total)
    if not np.isfinite(alpha) or alpha <= 0:
        raise PartitionError(f"alpha is {alpha}; it must be above 0")
    if minimum < 1 or total < count * minimum:
        raise PartitionError(f"{total} examples cannot give {count} learners at least {minimum} each")
    random = np.random.RandomState(seed)
    best = _draw(random, members, count, alpha)
    for _ in range(_DRAWS):
        if min(map(len, best)) >= minimum:
            break
        best = max(best, _draw(random, members, count, alpha), key=lambda shares: min(map(len, shares)))
    return np.sort(_levelled(best, minimum)[index])


def _draw(random: np.random.RandomState, members: list[Indices], count: int, alpha: float) -> list[Indices]:
    shares: list[list[Indices]] = [[] for _ in range(count)]
    for indices in members:
        # Gamma draws instead of dirichlet(): for a tiny alpha all of them may underflow to zero.
        gammas = random.standard_gamma(alpha, size=count)
        sizes = _apportion(len(indices), gammas if gammas.sum() > 0 else np.eye(count)[random.randint(count)])
        for share, part in zip(shares, np.split(random.permutation(indices), np.cumsum(sizes)[:-1]), strict=True):
            share.append(part)
    return [np.concatenate(share) for share in shares]


def _levelled(shares: list[Indices], minimum: int) -> list[Indices]:
    """Shares of at least `minimum`, the missing examples taken from whichever share is the largest."""
    shares = list(shares)
    for place in range(len(shares)):
        while len(shares[place]) < minimum:
            largest = max(range(len(shares)), key=lambda other: len(shares[other]))
            shares[place] = np.append(shares[place], shares[largest][-1])
            shares[largest] = shares[largest][:-1]
    return shares


def _apportion(total: int, shares: NDArray[np.float64]) -> Indices:
    """`total` in whole numbers proportional to `shares`; the largest remainders are rounded up."""
    exact = total * shares / shares.sum()
    sizes: Indices = np.floor(exact).astype(np.int64)
    rest = np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]
    sizes[rest] += 1
    return sizes


def _at_least(sizes: Indices, minimum: int) -> Indices:
    sizes = sizes.copy()
    while sizes.min() < minimum:
        sizes[sizes.argmax()] -= 1
        sizes[sizes.argmin()] += 1
    return sizes


def _members(labels: ArrayLike) -> list[Indices]:
    """The examples of each class."""
    array = np.asarray(labels)
    if array.ndim != 1 or array.size == 0:
        raise PartitionError(f"labels must be a list of one label an example, not an array of shape {array.shape}")
    return [np.flatnonzero(array == label) for label in np.unique(array)]


def _check_place(index: int, count: int, examples: int) -> None:
    if not 0 <= index < count:
        raise PartitionError(f"share {index} of {count} does not exist; shares count from 0")
    if examples < count:
        raise PartitionError(f"{examples} examples cannot be divided among {count} learners")
