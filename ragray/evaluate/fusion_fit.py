"""Fitting the fusion without fooling oneself. In: what each setting is worth for each query. Out: the best one, its gain held out. Pure.

N queries, S settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np

from ragray.errors import InputError
from ragray.evaluate.intervals import Interval, interval

FOLDS = 10
LEAST_QUERIES = 20
"""Fewer queries cannot be split into folds that say anything."""

WEIGHTS = tuple(number / 20 for number in range(21))
"""Values of `retrieve.dense_weight` that are tried."""

TYPICAL_DEVIATION = 0.4
"""Standard deviation of nDCG@10 over queries, about, on every set that was measured for `docs/experiments.md`."""

TWO_SIDED = 1.96
"""Standard errors on either side of a mean that hold 95%."""

Setting = tuple[float, int]
"""Dense weight and candidates."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The setting that is best on all queries, those of the folds, and what the latter gain over the default, query by query.

    ``held_out`` names for each query the setting that was best on the other folds: by it the query is judged.
    """

    best: Setting
    held_out: tuple[Setting, ...]
    gain: float
    edges: Interval
    enough: int
    """Queries with which a gain of this size would be clear; 0 where there is none."""

    @property
    def clear(self) -> bool:
        """Whether the interval of the gain lies above 0."""
        return self.edges[0] > 0

    @property
    def weights(self) -> tuple[float, float]:
        """The least and the greatest dense weight of the folds."""
        found = [weight for weight, _ in self.held_out]
        return min(found), max(found)


def settings(depths: Sequence[int], default: Setting) -> list[Setting]:
    """Return what is tried, the nearest to the default first: of equally good settings the first is chosen."""
    every = {default, *product(WEIGHTS, depths)}
    return sorted(every, key=lambda one: (abs(one[0] - default[0]), abs(one[1] - default[1]), one))


def fit(values: Mapping[Setting, np.ndarray], default: Setting, *, seed: int = 0) -> Fit:
    """Choose the setting with the best mean; judge the choice by cross-validation over queries.

    ``values`` holds nDCG@10 of every query, (N,), by setting. In each of 10 folds stand the values of the setting that is best on
    the nine others, so that no query is judged by a setting that was chosen with it.

    Raises:
        InputError: there are fewer than 20 queries.
    """
    tried, values_SN = list(values), np.stack(list(values.values()))
    num_queries = values_SN.shape[1]
    require_enough(num_queries)
    fold_N = np.random.default_rng(seed).permutation(num_queries) % FOLDS
    best_F = [int(np.argmax(values_SN[:, fold_N != fold].mean(axis=1))) for fold in range(FOLDS)]
    chosen_N = np.array(best_F)[fold_N]
    gains_N = values_SN[chosen_N, np.arange(num_queries)] - values[default]
    gain = float(gains_N.mean())
    best = tried[int(np.argmax(values_SN.mean(axis=1)))]
    held_out = tuple(tried[number] for number in chosen_N)
    return Fit(best, held_out, gain, interval(gains_N.tolist()), _enough(gain, float(gains_N.std())))


def picked(values: Mapping[Setting, Sequence[float]], chosen: Sequence[Setting]) -> list[float]:
    """Return the value of each query under the setting chosen for it."""
    return [values[setting][number] for number, setting in enumerate(chosen)]


def require_enough(num_queries: int) -> None:
    """Raise `InputError` where there are too few queries; the message says how many give which interval."""
    if num_queries < LEAST_QUERIES:
        wide, half, narrow = (ceil((TWO_SIDED * TYPICAL_DEVIATION / width) ** 2) for width in (0.1, 0.05, 0.02))
        raise InputError(
            f"index tune: {num_queries} queries can be searched for and have a relevant document, at least {LEAST_QUERIES} are "
            f"needed; the 95% interval of nDCG@10 is about +-0.10 with {wide} queries, +-0.05 with {half}, +-0.02 with "
            f"{narrow}; judge more queries"
        )


def _enough(gain: float, deviation: float) -> int:
    return ceil((TWO_SIDED * deviation / gain) ** 2) if gain > 0 else 0
