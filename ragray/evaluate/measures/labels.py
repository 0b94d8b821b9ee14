"""Measures of labels. In: answers whose references are labels, such as a sentiment. Out: accuracy and macro-F1. Pure.

N answers, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ragray.errors import ConfigError
from ragray.evaluate.answers import contains, exact_match, metric_of
from ragray.evaluate.measures.measured import Measured, mean_of, ratio
from ragray.evaluate.metrics import metric as metric_named
from ragray.evaluate.records import Answered
from ragray.types import Example

NAMES = ("label_accuracy", "macro_f1")
MOST_LABELS = 100
"""More different references are no labels."""

HOW = "the label that the answer is, or the only one that it holds"


def require_labels(examples: Sequence[Example]) -> None:
    """Raise `ConfigError` where the references of some examples are too many to be labels."""
    num_labels = len({answer for example in examples for answer in example.answers})
    if num_labels > MOST_LABELS:
        raise ConfigError(
            f"evaluate.metrics: {' and '.join(NAMES)} compare labels, and there are {num_labels} different references, at most "
            f"{MOST_LABELS} are labels; leave them out"
        )


def label_measures(answered: Sequence[Answered], metric: str) -> Iterator[Measured]:
    """Yield the share of answers with a right label, and the mean of the labels' F1.

    The labels are those of the references. An answer has the label that it is, after the metric's normalisation, or else the only
    one whose words stand in it; otherwise it has none, which is wrong. Of several accepted labels the one that was answered counts.
    """
    labels = _labels(answered, metric)
    predicted = [_label(one.prediction, labels, metric_of(one.example, metric)) for one in answered]
    expected = [_expected(one, label, metric) for one, label in zip(answered, predicted, strict=True)]
    right = [float(one == other) for one, other in zip(predicted, expected, strict=True)]
    yield mean_of("label_accuracy", right, HOW)
    yield Measured("macro_f1", _counts(predicted, expected, list(labels)), _macro_f1, f"{len(labels)} labels; {HOW}")


def _normal(text: str, metric: str) -> str:
    return metric_named(metric).exact(text)


def _labels(answered: Sequence[Answered], metric: str) -> dict[str, str]:
    """Return the labels, normalised, with the text of each."""
    texts = {_normal(text, metric_of(one.example, metric)): text for one in answered for text in one.example.answers}
    return dict(sorted(texts.items()))


def _label(prediction: str, labels: dict[str, str], metric: str) -> str:
    """Return the label of an answer, "" where it has none."""
    same = [label for label, text in labels.items() if exact_match(prediction, text, metric)]
    held = same or [label for label, text in labels.items() if contains(prediction, text, metric)]
    return held[0] if len(held) == 1 else ""


def _expected(one: Answered, predicted: str, metric: str) -> str:
    accepted = [_normal(text, metric_of(one.example, metric)) for text in one.example.answers]
    return predicted if predicted in accepted else accepted[0]


def _counts(predicted: Sequence[str], expected: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Return for each answer and label whether it is right, answered, expected: (N, 3 L)."""
    names = np.array(labels)
    answered_NL = np.array(predicted)[:, None] == names
    expected_NL = np.array(expected)[:, None] == names
    return np.concatenate([answered_NL & expected_NL, answered_NL, expected_NL], axis=1).astype(np.float64)


def _macro_f1(sums_TS: np.ndarray) -> np.ndarray:
    """Return the mean F1 of the labels that were answered or expected, in percent, for each of T sets of answers."""
    right_TL, answered_TL, expected_TL = np.split(sums_TS, 3, axis=1)
    all_TL = answered_TL + expected_TL
    f1_TL = np.nan_to_num(ratio(2 * right_TL, all_TL))
    return ratio(100 * f1_TL.sum(axis=1), (all_TL > 0).sum(axis=1))
