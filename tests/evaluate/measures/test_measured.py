"""Figures: means over the answers that a measure applies to; intervals that hold them."""

import math

import numpy as np
import pytest

from ragray.evaluate.intervals import interval
from ragray.evaluate.measures.measured import Measured, mean_of


def test_a_mean_is_over_the_answers_that_it_applies_to() -> None:
    found = mean_of("x", [1.0, 0.0, None, 0.5])
    assert (found.figure, found.num_examples) == (50.0, 3)
    assert found.values()[:2] == [100.0, 0.0]
    assert math.isnan(found.values()[2])


def test_what_applies_to_no_answer_has_no_figure_and_no_interval() -> None:
    found = mean_of("x", [None, None])
    assert math.isnan(found.figure)
    assert found.num_examples == 0
    assert all(map(math.isnan, found.interval()))


def test_the_interval_of_a_mean_is_that_of_its_values() -> None:
    values = np.random.default_rng(3).random(50).tolist()
    low, high = interval(values)
    assert mean_of("x", values).interval() == pytest.approx((100 * low, 100 * high))


def test_an_interval_of_few_answers_leaves_out_samples_without_any() -> None:
    low, high = mean_of("x", [1.0, None, None, None, 0.0]).interval()
    assert (low, high) == (0.0, 100.0)


def test_a_figure_of_sums_is_resampled_by_its_sums() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]])
    found = Measured("x", rows, lambda sums_TS: 100 * sums_TS[:, 0] / sums_TS[:, 1])
    assert found.figure == pytest.approx(100 * 4 / 7)
    assert set(np.round(found.resampled(), 6)) <= {
        round(100 * sum(rows[n][0] for n in drawn) / sum(rows[n][1] for n in drawn), 6) for drawn in np.ndindex(3, 3, 3)
    }
