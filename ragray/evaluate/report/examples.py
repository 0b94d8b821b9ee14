"""Answers worth reading. In: answered questions, what was measured. Out: the ten best and the ten worst. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ragray.evaluate.measures.measured import Measured
from ragray.evaluate.records import Answered

COUNT = 10
ORDER = ("rougeL", "chrf", "bleu", "rouge1", "rouge2", "label_accuracy", "f1")
"""Measures that answers are ordered by: the first that was measured."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer, with the measure that it was chosen by and its value in percent."""

    answered: Answered
    measure: str
    value: float


def examples(answered: Sequence[Answered], found: Sequence[Measured]) -> tuple[list[Shown], list[Shown], str]:
    """Return the best and the worst answers, none of them twice, and how they were chosen.

    Of equal ones come first those that the generator was surest of: right and sure, wrong and sure.
    """
    by_name = {one.name: one for one in found}
    measure = by_name[next(name for name in ORDER if name in by_name)]
    shown = [Shown(one, measure.name, value) for one, value in zip(answered, measure.values(), strict=True)]
    shown = [one for one in shown if not math.isnan(one.value)]
    best = sorted(shown, key=lambda one: (-one.value, -one.answered.log_prob, one.answered.example.id))
    worst = sorted(shown, key=lambda one: (one.value, -one.answered.log_prob, one.answered.example.id))
    count = min(COUNT, math.ceil(len(shown) / 2))
    return best[:count], worst[: min(COUNT, len(shown) - count)], f"By {measure.name}, then by log-probability."
