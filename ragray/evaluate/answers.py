"""Answers scored against references. In: predicted and accepted texts. Out: exact match and token F1 as SQuAD 1.1 defines them.

Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1: punctuation, articles, case and extra white space are ignored, and
the score of a prediction is the best over all references.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ragray.errors import InputError
from ragray.types import Example

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower-case, drop punctuation, then articles, then extra white space, in this order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, reference: str) -> float:
    """Return 1.0 where both are the same after `normalize`."""
    return float(normalize(prediction) == normalize(reference))


def token_f1(prediction: str, reference: str) -> float:
    """Return the harmonic mean of token precision and recall, tokens counted with their multiplicity."""
    predicted, expected = normalize(prediction).split(), normalize(reference).split()
    shared = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * shared / (len(predicted) + len(expected)) if shared else 0.0


def contains(prediction: str, reference: str) -> float:
    """Return 1.0 where the prediction contains the reference, whole words only, after `normalize`."""
    return float(f" {normalize(reference)} " in f" {normalize(prediction)} ")


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """Means over all examples, in percent, and the counts behind them.

    ``accuracy`` is the share of predictions that contain an accepted answer (Mallen et al. 2023, arXiv:2212.10511): a
    correct answer in a long sentence counts.
    """

    exact_match: float
    f1: float
    accuracy: float
    num_examples: int
    num_predictions: int
    num_missing: int


def score(predictions: Mapping[str, str], examples: Sequence[Example]) -> AnswerScores:
    """Score predictions (id to text) against examples; an example without prediction scores zero, as in SQuAD's own script.

    Raises:
        InputError: there are no examples, or no prediction belongs to any of them.
    """
    if not examples:
        raise InputError("no examples to score against; give a file with lines of id and answers")
    found = [(predictions[example.id], example) for example in examples if example.id in predictions]
    if not found:
        raise InputError(
            f"none of the {len(predictions)} predictions has the id of any of the {len(examples)} examples; "
            f"an id there is '{examples[0].id}'"
        )

    def mean(measure: Callable[[str, str], float]) -> float:
        return 100 * sum(max(measure(text, ref) for ref in example.answers) for text, example in found) / len(examples)

    return AnswerScores(
        mean(exact_match), mean(token_f1), mean(contains), len(examples), len(predictions), len(examples) - len(found)
    )
