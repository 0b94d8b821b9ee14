"""The fusion that fits: what is tried, the choice held out, a gain that is clear and one that is not."""

import numpy as np
import pytest

from ragray.errors import InputError
from ragray.evaluate.fusion_fit import FOLDS, WEIGHTS, Fit, Setting, fit, picked, require_enough, settings

DEFAULT: Setting = (0.45, 100)
BETTER: Setting = (0.2, 50)
WORSE: Setting = (0.9, 50)


def noise(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, size)


def slow_folds(values: dict[Setting, np.ndarray], seed: int) -> list[Setting]:
    """For each query the best setting of the queries in other folds, one query at a time."""
    size = len(values[DEFAULT])
    fold = np.random.default_rng(seed).permutation(size) % FOLDS
    chosen = []
    for query in range(size):
        others = [other for other in range(size) if fold[other] != fold[query]]
        chosen.append(max(values, key=lambda one: float(np.mean([values[one][other] for other in others]))))
    return chosen


def test_every_weight_is_tried_at_every_depth_beside_the_default_which_comes_first() -> None:
    tried = settings((20, 100), (0.42, 60))
    assert len(tried) == len(set(tried)) == 2 * len(WEIGHTS) + 1
    assert tried[:3] == [(0.42, 60), (0.4, 20), (0.4, 100)]


def test_each_query_is_judged_by_the_setting_that_is_best_on_the_other_folds() -> None:
    values = {one: 0.5 + noise(57, number) for number, one in enumerate((DEFAULT, BETTER, WORSE))}
    found = fit(values, DEFAULT, seed=3)
    assert list(found.held_out) == slow_folds(values, 3)
    assert len(set(found.held_out)) > 1, "the folds of this noise disagree"
    judged = picked({one: own.tolist() for one, own in values.items()}, found.held_out)
    assert found.gain == pytest.approx(float(np.mean(judged - values[DEFAULT])))


def test_a_gain_on_most_queries_is_clear() -> None:
    base = 0.5 + noise(200, 0)
    values = {DEFAULT: base, BETTER: base + 0.05 + noise(200, 1), WORSE: base - 0.05}
    found = fit(values, DEFAULT)
    assert (found.best, set(found.held_out), found.weights) == (BETTER, {BETTER}, (0.2, 0.2))
    assert found.clear
    assert found.gain == pytest.approx(float(np.mean(values[BETTER] - base)))
    assert found.edges[0] < found.gain < found.edges[1]


def test_what_fits_noise_alone_is_no_clear_gain_although_it_is_best_on_the_queries_it_was_chosen_with() -> None:
    every: dict[Setting, np.ndarray] = {
        one: 0.5 + noise(60, number) for number, one in enumerate(settings((50,), DEFAULT))
    }
    found = fit(every, DEFAULT)
    assert every[found.best].mean() > every[DEFAULT].mean() + 0.01
    assert not found.clear


def test_of_equally_good_settings_the_first_is_chosen_so_that_nothing_changes_without_a_reason() -> None:
    same = np.full(30, 0.5)
    found = fit({DEFAULT: same, BETTER: same, WORSE: same}, DEFAULT)
    assert found == Fit(DEFAULT, (DEFAULT,) * 30, 0.0, (0.0, 0.0), 0)
    assert not found.clear


def test_an_unclear_gain_says_how_many_queries_would_show_it() -> None:
    ups = np.tile([0.3, -0.28], 40)
    found = fit({DEFAULT: np.zeros(80), BETTER: ups, WORSE: np.full(80, -1.0)}, DEFAULT)
    assert not found.clear
    if found.gain > 0:
        assert found.enough > 80
    else:
        assert found.enough == 0


def test_too_few_queries_are_refused_with_the_numbers_that_an_interval_needs() -> None:
    require_enough(20)
    with pytest.raises(InputError, match=r"19 queries .* at least 20 .* \+-0.10 with 62 queries, \+-0.05 with 246"):
        fit({DEFAULT: np.zeros(19)}, DEFAULT)
