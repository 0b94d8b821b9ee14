"""How sure a mean is. In: a value of each query. Out: bootstrap intervals (Efron 1979; Sakai 2006 for retrieval). Pure.

N queries, M measures, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
Interval = tuple[float, float]


def resampled_sums(values_NM: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return the sums over R samples of N queries, drawn with replacement, (R, M); the same ones for the same seed and N."""
    rng, size = np.random.default_rng(seed), len(values_NM)
    counts = (np.bincount(rng.integers(0, size, size), minlength=size) for _ in range(RESAMPLES))
    return np.stack([count_N @ values_NM for count_N in counts])


def resampled_means(values_NM: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return the means of the samples of `resampled_sums`, (R, M)."""
    means_RM: np.ndarray = resampled_sums(values_NM, seed=seed) / len(values_NM)
    return means_RM


def middle(values_R: np.ndarray) -> Interval:
    """Return the interval that holds 95% of some values; those that are NaN do not count.

    Both ends are NaN where all are.
    """
    known = values_R[~np.isnan(values_R)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def intervals(values_NM: np.ndarray) -> list[Interval]:
    """Return for each measure the interval that holds 95% of the resampled means."""
    return [middle(means_R) for means_R in resampled_means(values_NM).T]


def interval(values: Sequence[float]) -> Interval:
    """Return the interval of one measure; of the differences of two systems, query by query, it is a paired test."""
    [found] = intervals(np.asarray(values, dtype=np.float64)[:, None])
    return found
