"""What a measure found. In: a row of numbers for each answer. Out: one figure of all, with its interval. Pure.

A figure is a function of sums over the answers: of values and their number for a mean, of counts of n-grams for BLEU. So one resampling
of answers gives the interval of every figure, and answers can be exchanged between two systems.

N answers, S sums, T sets of answers (resamples, for instance).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ragray.evaluate.intervals import Interval, middle, resampled_sums


@dataclass(frozen=True, slots=True)
class Measured:
    """The numbers of one measure. A row of zeros stands where the measure does not apply to an answer.

    ``value`` turns sums over the answers of each of T sets, (T, S), into the figure of each, (T,), in percent; NaN where there is
    nothing to measure. ``how`` says how it was computed, where its name does not.
    """

    name: str
    rows_NS: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]
    how: str = ""

    @property
    def num_examples(self) -> int:
        """Answers that the measure applies to."""
        return int(self.rows_NS.any(axis=1).sum())

    @property
    def figure(self) -> float:
        """The figure of all answers."""
        [found] = self.value(self.rows_NS.sum(axis=0, keepdims=True))
        return float(found)

    def values(self) -> list[float]:
        """Return the figure of each answer alone; NaN where the measure does not apply."""
        found: list[float] = self.value(self.rows_NS).tolist()
        return found

    def resampled(self) -> np.ndarray:
        """Return the figures of the samples of `resampled_sums`, (T,); for as many answers always the same samples."""
        return self.value(resampled_sums(self.rows_NS))

    def interval(self) -> Interval:
        """Return the interval that holds 95% of the resampled figures."""
        return middle(self.resampled())


def mean_of(name: str, values: Sequence[float | None], how: str = "") -> Measured:
    """Return the measure whose figure is the mean of shares from 0 to 1; None where it does not apply to an answer."""
    rows = [(0.0, 0.0) if value is None else (float(value), 1.0) for value in values]
    return Measured(name, np.array(rows, dtype=np.float64).reshape(-1, 2), _percentage, how)


def _percentage(sums_TS: np.ndarray) -> np.ndarray:
    return ratio(100 * sums_TS[:, 0], sums_TS[:, 1])


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return quotients; NaN where the divisor is 0."""
    found: np.ndarray = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return found
