"""Which validation is the best, and when there is nothing more to gain."""

import pytest

from ragray.train.validation.judge import Judgement, Validation, best_first, in_words, judge


def validations(*scores: float | None) -> list[Validation]:
    """One every ten steps; None failed."""
    return [
        Validation(10 * n, {"f1": score, "loss": score}) if score is not None else Validation(10 * n, failure="full")
        for n, score in enumerate(scores, 1)
    ]


def best_step(judgement: Judgement) -> int | None:
    return judgement.best.step if judgement.best else None


def test_the_best_is_the_first_of_the_highest_figure() -> None:
    found = validations(10, 30, 30, 20)
    assert best_step(judge(found, "f1")) == 20
    assert [one.step for one in best_first(found, "f1")] == [20, 30, 40, 10]


def test_of_losses_the_lowest_is_the_best() -> None:
    found = validations(3, 1, 2)
    assert best_step(judge(found, "loss")) == 20
    assert [one.step for one in best_first(found, "loss")] == [20, 30, 10]


def test_a_failed_validation_is_never_the_best_and_counts_for_nothing() -> None:
    found = validations(None, 10, None, None, 5, None)
    assert judge(found, "f1", patience=2) == Judgement(found[1], num_scored=2, num_failed=4, ended=False)
    assert judge(validations(None, None), "f1", patience=1) == Judgement(num_failed=2)
    assert best_first(found, "f1") == [found[1], found[4]]


@pytest.mark.parametrize(
    ("scores", "patience", "step", "ended"),
    [
        ((10, 20, 20, 15), 2, 20, True),
        ((10, 20, 20, 25), 3, 40, False),
        ((10, 9, 8, 7), 0, 10, False),
        ((10, 9, 99), 1, 10, True),
        ((10, None, 9, None, 8), 2, 10, True),
    ],
)
def test_training_ends_after_so_many_validations_without_gain_and_later_ones_count_for_nothing(
    scores: tuple[float | None, ...], patience: int, step: int, ended: bool
) -> None:
    judgement = judge(validations(*scores), "f1", patience)
    assert (best_step(judgement), judgement.ended) == (step, ended)


def test_the_order_in_which_they_ended_does_not_matter() -> None:
    found = validations(10, 20, 20, 15, 40)
    assert judge(reversed(found), "f1", 2) == judge(found, "f1", 2)


@pytest.mark.parametrize("one", [Validation(7, {"f1": 12.5, "seconds": 3.0}), Validation(7, failure="no room")])
def test_a_line_of_metrics_holds_a_validation(one: Validation) -> None:
    assert Validation.of_line({"step": 7, **one.to_line()}) == one


def test_a_line_of_a_step_holds_none() -> None:
    line = {"step": 7, "loss": 0.5}
    assert Validation.of_line(line) is None
    assert in_words(line) == ""


def test_the_log_says_figures_or_the_reason_why_there_are_none() -> None:
    assert in_words({"step": 7, "dev_f1": 12.5, "dev_loss": 1.0}) == "validation of step 7: f1 12.5, loss 1"
    assert in_words({"step": 7, "dev_failed": "no room"}) == "validation of step 7: no score (no room)"
