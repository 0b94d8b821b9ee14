"""Few-shot prompts. In: examples to show, a question. Out: those shown for it, and the instruction with them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ragray.errors import InputError
from ragray.text.analyzer import fold
from ragray.types import Example

TITLE = "Examples:"


def candidates(examples: Sequence[Example], shots: int) -> tuple[Example, ...]:
    """Return the examples that are shown, spread evenly over those that differ in their question, and one to replace each.

    Raises:
        InputError: there are not enough for a question that is among them.
    """
    by_question: dict[str, Example] = {}
    for example in examples:
        by_question.setdefault(_same(example.question), example)
    distinct = list(by_question.values())
    if len(distinct) < shots + 1:
        raise InputError(
            f"evaluate.exemplars: holds {len(distinct)} different questions, and {shots + 1} are needed for evaluate.shots={shots}, "
            "as none is shown for itself; give a larger file, or fewer shots"
        )
    return tuple(distinct[number * len(distinct) // (shots + 1)] for number in range(shots + 1))


def shown_for(question: str, found: Sequence[Example], shots: int) -> list[Example]:
    """Return the first ``shots`` candidates but for the question itself: the same ones for every question that is none of them."""
    return [example for example in found if _same(example.question) != _same(question)][:shots]


def with_exemplars(instruction: str, shown: Sequence[Example]) -> str:
    """Return an instruction with solved examples before it, "" without any: the prompt template has its own then."""
    if not shown:
        return ""
    solved = "\n\n".join(f"Question: {example.question}\nAnswer: {example.answers[0]}" for example in shown)
    return f"{TITLE}\n\n{solved}\n\n{instruction}"


def _same(question: str) -> str:
    return " ".join(fold(question).split())
