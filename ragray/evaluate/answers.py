"""Answers scored against references. In: predicted and accepted texts. Out: exact match, token F1 and accuracy.

Which metric counts (`ragray.evaluate.metrics`), the caller says, or the script of the reference; a prediction gets the best score
over all references.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ragray.errors import InputError
from ragray.evaluate.metrics import metric as metric_named
from ragray.evaluate.metrics import metric_for
from ragray.types import Example

Measure = Callable[[str, str, str], float]
"""What a prediction is worth by one reference and a metric, 0 to 1."""


def exact_match(prediction: str, reference: str, metric: str = "auto") -> float:
    """Return 1.0 where both are the same after the metric's normalisation."""
    exact = metric_named(metric_for(reference, metric)).exact
    return float(exact(prediction) == exact(reference))


def token_f1(prediction: str, reference: str, metric: str = "auto") -> float:
    """Return the harmonic mean of token precision and recall, as the metric counts shared tokens."""
    chosen = metric_named(metric_for(reference, metric))
    return chosen.f1(chosen.tokens(prediction), chosen.tokens(reference))


def contains(prediction: str, reference: str, metric: str = "auto") -> float:
    """Return 1.0 where the reference's tokens stand side by side somewhere in the prediction."""
    tokens = metric_named(metric_for(reference, metric)).tokens
    return float(f" {' '.join(tokens(reference))} " in f" {' '.join(tokens(prediction))} ")


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
    metrics: Mapping[str, int]
    """How many examples each metric scored."""


def score(predictions: Mapping[str, str], examples: Sequence[Example], *, metric: str = "auto") -> AnswerScores:
    """Score predictions (id to text) against examples; an example without prediction scores zero, as in SQuAD's own script.

    ``metric`` is a value of `evaluate.metric`.

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

    names = {example.id: metric_of(example, metric) for example in examples}

    def mean(measure: Measure) -> float:
        best = (best_of(measure, text, example, names[example.id]) for text, example in found)
        return 100 * sum(best) / len(examples)

    used = dict(sorted(Counter(names[example.id] for example in examples).items()))
    missing = len(examples) - len(found)
    return AnswerScores(
        mean(exact_match), mean(token_f1), mean(contains), len(examples), len(predictions), missing, metrics=used
    )


def best_of(measure: Measure, prediction: str, example: Example, metric: str) -> float:
    """Return what a prediction is worth by the reference that fits it best."""
    return max(measure(prediction, reference, metric) for reference in example.answers)


def metric_of(example: Example, setting: str) -> str:
    """Return the metric of an example: with `auto` that of most of its references, the first where they tie."""
    [(name, _)] = Counter(metric_for(answer, setting) for answer in example.answers).most_common(1)
    return name
