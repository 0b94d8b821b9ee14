"""Two reports compared: the p-value is that of all exchanges, the interval that of the same samples; ids are paired and counted."""

import logging
import random
from itertools import product

import numpy as np
import pytest

from ragray.errors import InputError
from ragray.evaluate.intervals import interval
from ragray.evaluate.measures.measured import Measured, mean_of
from ragray.evaluate.records import Answered
from ragray.evaluate.report.compare import differences, shared
from ragray.types import Example

VALUES = [1.0, 0.5, 1.0, 0.0, 1.0, 1.0, 0.25, 1.0, 0.5]
BASELINE = [0.0, 0.5, 0.5, 0.5, 0.0, 1.0, 0.0, 0.5, 0.25]


def exact_p_value(here: list[float], baseline: list[float]) -> float:
    """The share of all 2^N exchanges whose difference is at least as large."""
    gaps = [one - other for one, other in zip(here, baseline, strict=True)]
    trials = [
        abs(sum(sign * gap for sign, gap in zip(signs, gaps, strict=True)))
        for signs in product((1, -1), repeat=len(gaps))
    ]
    return sum(trial >= abs(sum(gaps)) - 1e-9 for trial in trials) / len(trials)


def test_the_p_value_is_near_that_of_all_exchanges() -> None:
    found = differences([mean_of("f1", VALUES)], [mean_of("f1", BASELINE)])["f1"]
    assert found.p_value == pytest.approx(exact_p_value(VALUES, BASELINE), abs=0.01)
    assert 0.01 < found.p_value < 0.2


def test_the_interval_is_that_of_the_differences_question_by_question() -> None:
    found = differences([mean_of("f1", VALUES)], [mean_of("f1", BASELINE)])["f1"]
    low, high = interval([100 * (one - other) for one, other in zip(VALUES, BASELINE, strict=True)])
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.difference == pytest.approx(found.here - found.baseline)


def test_equal_systems_differ_by_nothing() -> None:
    found = differences([mean_of("f1", VALUES)], [mean_of("f1", VALUES)])["f1"]
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_figures_of_sums_are_exchanged_by_their_sums() -> None:
    """A ratio of sums, such as BLEU, is no mean: its trials are computed anew."""

    def ratio(rows: list[list[float]]) -> Measured:
        return Measured("x", np.array(rows), lambda sums_TS: 100 * sums_TS[:, 0] / sums_TS[:, 1])

    here, baseline = [[3, 4], [1, 1], [2, 5], [4, 4]], [[1, 4], [0, 2], [2, 5], [1, 3]]
    observed = abs(ratio(here).figure - ratio(baseline).figure)
    trials = []
    for swaps in product((False, True), repeat=4):
        mine = [other if swap else one for one, other, swap in zip(here, baseline, swaps, strict=True)]
        theirs = [one if swap else other for one, other, swap in zip(here, baseline, swaps, strict=True)]
        trials.append(abs(ratio(mine).figure - ratio(theirs).figure) >= observed - 1e-9)
    found = differences([ratio(here)], [ratio(baseline)])["x"]
    assert found.p_value == pytest.approx(sum(trials) / len(trials), abs=0.02)


def test_only_measures_that_both_have_are_compared() -> None:
    nothing = mean_of("mrr", [None] * 9)
    here = [mean_of("f1", VALUES), mean_of("bleu", VALUES), mean_of("mrr", VALUES)]
    assert list(differences(here, [mean_of("f1", BASELINE), nothing])) == ["f1"]


def some(ids: str, prediction: str, reference: str = "x") -> list[Answered]:
    return [Answered(Example(name, "?", (reference,)), prediction) for name in ids]


def test_answers_are_paired_by_id_and_the_others_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="ragray"):
        found = shared(some("abc", "here"), some("cdb", "there"), "work/old")
    assert [(one.example.id, other.prediction) for one, other in zip(found.here, found.baseline, strict=True)] == [
        ("b", "there"),
        ("c", "there"),
    ]
    assert (found.only_here, found.only_baseline) == (("a",), ("d",))
    assert "work/old on 2 shared ids; 1 are only here, 1 only there (the first: 'a')" in caplog.text


def test_both_are_scored_by_the_references_of_this_report() -> None:
    found = shared(some("ab", "1", "x"), some("ab", "2", "y"), "old")
    assert found.num_other_references == 2
    assert {one.example.answers for one in found.baseline} == {("x",)}


def test_reports_without_a_shared_id_are_refused() -> None:
    with pytest.raises(InputError, match=r"--baseline old: none of its 1 ids .*there 'b', here 'a'"):
        shared(some("a", "1"), some("b", "2"), "old")


def test_chance_alone_is_seldom_significant() -> None:
    chance = random.Random(9)
    trials = [[chance.random() for _ in range(12)] for _ in range(20)]
    p_values = [
        differences([mean_of("f1", one)], [mean_of("f1", other)])["f1"].p_value
        for one, other in zip(trials[::2], trials[1::2], strict=True)
    ]
    assert sum(p < 0.05 for p in p_values) <= 2
