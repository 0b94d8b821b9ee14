"""Labels: which label an answer has, and macro-F1 as scikit-learn defines it."""

import random

import pytest

from ragray.evaluate.measures.labels import label_measures
from tests.evaluate.measures.answered import answered

LABELS = ("positive", "negative", "neutral")


def figures(pairs: list[tuple[str, str]]) -> dict[str, float]:
    return {one.name: one.figure for one in label_measures([answered(*pair) for pair in pairs], "auto")}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Positive.", True),
        ("I think it is positive", True),
        ("positive or negative", False),
        ("not sure", False),
        ("negative", False),
        ("", False),
    ],
)
def test_an_answer_has_the_label_that_it_is_or_the_only_one_that_it_holds(answer: str, right: bool) -> None:
    [accuracy, _] = label_measures([answered(answer, "positive"), answered("negative", "negative")], "auto")
    assert accuracy.values() == [100.0 * right, 100.0]


def slow_macro_f1(pairs: list[tuple[str, str]]) -> float:
    """F1 of each label, one after the other, and their mean."""
    scores = []
    for label in sorted({expected for _, expected in pairs}):
        right = sum(one == label == other for one, other in pairs)
        said = sum(one == label for one, _ in pairs)
        wanted = sum(other == label for _, other in pairs)
        precision, recall = right / said if said else 0.0, right / wanted
        scores.append(2 * precision * recall / (precision + recall) if right else 0.0)
    return 100 * sum(scores) / len(scores)


def test_macro_f1_is_the_mean_of_the_labels() -> None:
    chance = random.Random(5)
    pairs = [(chance.choice([*LABELS, "unclear"]), chance.choice(LABELS)) for _ in range(60)]
    found = figures(pairs)
    assert found["macro_f1"] == pytest.approx(slow_macro_f1(pairs))
    assert found["label_accuracy"] == pytest.approx(100 * sum(one == other for one, other in pairs) / 60)
    assert 0 < found["macro_f1"] < 100


def test_of_several_accepted_labels_the_one_that_was_answered_counts() -> None:
    both = [answered("neutral", "positive", "neutral"), answered("positive", "positive")]
    assert [one.figure for one in label_measures(both, "auto")] == [100.0, 100.0]


def test_labels_of_any_script_are_compared_as_their_metric_does() -> None:
    assert figures([("正面。", "正面"), ("负面", "正面"), ("负面", "负面")])["label_accuracy"] == pytest.approx(200 / 3)
