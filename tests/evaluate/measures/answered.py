"""Answered questions for tests of measures."""

from collections.abc import Sequence
from typing import Any

from ragray.evaluate.records import Answered
from ragray.types import Example


def answered(prediction: str, *references: str, gold: Sequence[str] = (), **fields: Any) -> Answered:
    """A question with its answer; the id is the prediction."""
    return Answered(Example(prediction, "who?", references, tuple(gold)), prediction, **({"text": prediction} | fields))
