"""The prior over passages has one meaning, whatever ranked them."""

import math

import pytest

from ragray.generate.prior import log_prior
from ragray.types import Hit, Passage


def hits(*pairs: tuple[float, float | None]) -> list[Hit]:
    return [Hit(Passage(str(n), "x"), score, dense) for n, (score, dense) in enumerate(pairs)]


def test_the_prior_is_the_softmax_of_the_dense_inner_products_by_temperature() -> None:
    first, second = log_prior(hits((0.9, 0.6), (0.8, 0.5)), 0.05)
    assert math.exp(first) + math.exp(second) == pytest.approx(1)
    assert first - second == pytest.approx((0.6 - 0.5) / 0.05)


@pytest.mark.parametrize("scores", [(31.2, 4.5), (1.0, 0.5), (9.0, -9.0)])
def test_scores_on_other_scales_do_not_change_it(scores: tuple[float, float]) -> None:
    expected = log_prior(hits((0.6, 0.6), (0.5, 0.5)), 0.05)
    assert log_prior(hits((scores[0], 0.6), (scores[1], 0.5)), 0.05) == expected


def test_without_a_question_encoder_a_passage_counts_by_its_rank() -> None:
    shares = [math.exp(value) for value in log_prior(hits((31.2, None), (4.5, None), (0.1, None)), 0.05)]
    assert shares == pytest.approx([6 / 11, 3 / 11, 2 / 11])


def test_of_scores_it_is_their_softmax_by_temperature_whatever_the_inner_products_are() -> None:
    first, second = log_prior(hits((0.8, 0.1), (0.5, 0.9)), 0.03, of="score")
    assert math.exp(first) + math.exp(second) == pytest.approx(1)
    assert first - second == pytest.approx((0.8 - 0.5) / 0.03)


def test_a_closed_book_has_one_certain_row() -> None:
    assert log_prior([], 0.05) == [0.0]
