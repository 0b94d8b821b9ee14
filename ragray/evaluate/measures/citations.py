"""Citation recall and precision. In: answers with their cited passages, what decides entailment. Out: both, by ALCE's rules.

Gao et al. 2023, arXiv:2305.14627, section 3.3, and the script of the authors. A statement is a sentence of the answer. Its recall
is 1 where all passages that it cites, together, support it. A citation is precise where its statement has recall 1, and it supports
the statement alone, or the others do not without it. Each answer has a recall (mean of its statements) and a precision (of all its
citations; 0 where it cites nothing); the figures are the means over the answers that say anything.

A system without `[n]` in its answers cites, for every statement, the passage with the greatest share in the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ragray.evaluate.measures.entailment import Claim, Entailment
from ragray.evaluate.measures.measured import Measured, mean_of
from ragray.evaluate.records import Answered
from ragray.generate.answer.markers import cited, with_known_numbers
from ragray.text.sentences import MARKS, STOPS, sentences
from ragray.types import Passage

CITATIONS = ("citation_recall", "citation_precision")
MOST = 3
"""Citations of a statement that count, as in the authors' script: the first."""

LATE_MARKERS = re.compile(rf"([{re.escape(MARKS + STOPS)}]+)((?: ?\[\d[\d ,;-]*\])+)")
"""Markers behind the end of their sentence."""

Numbers = tuple[int, ...]
"""Passages of an answer, counted from 0."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence without its markers, and the passages that it cites."""

    text: str
    cites: Numbers


def citation_measures(
    answered: Sequence[Answered], passages: Mapping[str, Passage], entailment: Entailment
) -> Iterator[Measured]:
    """Yield recall and precision of the citations; answers without passages, or that say nothing, do not count."""
    told = [statements(one) if one.sources else [] for one in answered]
    pairs = list(zip(answered, told, strict=True))
    judged = _judged(pairs, passages, entailment)
    found = [
        _recall_and_precision(number, said, judged) if said else (None, None) for number, (_, said) in enumerate(pairs)
    ]
    how = f"ALCE, {entailment.how}"
    yield mean_of("citation_recall", [recall for recall, _ in found], how)
    yield mean_of("citation_precision", [precision for _, precision in found], how)


def statements(one: Answered) -> list[Statement]:
    """Return the statements of an answer with what each cites."""
    if not one.numbered:
        weights = one.weights or (1.0,)
        best = max(range(len(weights)), key=lambda number: weights[number])
        return [Statement(text, (best,)) for text in sentences(one.prediction)]
    found = sentences(LATE_MARKERS.sub(r"\2\1", one.text))
    all_of_them = (_statement(text, len(one.sources)) for text in found)
    return [statement for statement in all_of_them if statement.text]


def _statement(text: str, num_passages: int) -> Statement:
    numbers = dict.fromkeys(number - 1 for number, _, _ in cited(text, num_passages))
    return Statement(with_known_numbers(text, 0).strip(), tuple(numbers)[:MOST])


Judged = Mapping[tuple[int, int, Numbers], bool]
"""By answer, statement and passages: whether these support it together."""


def _judged(
    pairs: Sequence[tuple[Answered, Sequence[Statement]]], passages: Mapping[str, Passage], entailment: Entailment
) -> Judged:
    """Judge at once all that either measure may ask for: all citations of a statement, each alone, all others without each."""
    claims = {
        (number, place, chosen): Claim(_premise(one, chosen, passages), one.example.question, statement.text)
        for number, (one, said) in enumerate(pairs)
        for place, statement in enumerate(said)
        for chosen in _subsets(statement.cites)
    }
    return dict(zip(claims, entailment.holds(list(claims.values())), strict=True))


def _subsets(cites: Numbers) -> set[Numbers]:
    single = {(number,) for number in cites}
    without = {_without(cites, number) for number in cites}
    return {chosen for chosen in {cites, *single, *without} if chosen}


def _without(cites: Numbers, number: int) -> Numbers:
    return tuple(other for other in cites if other != number)


def _premise(one: Answered, chosen: Numbers, passages: Mapping[str, Passage]) -> str:
    found = [passages[one.sources[number]] for number in chosen if one.sources[number] in passages]
    return "\n".join(f"Title: {passage.title}\n{passage.text}" if passage.title else passage.text for passage in found)


def _recall_and_precision(number: int, said: Sequence[Statement], judged: Judged) -> tuple[float, float]:
    def holds(place: int, chosen: Numbers) -> bool:
        return judged.get((number, place, chosen), False)

    recalled = [holds(place, statement.cites) for place, statement in enumerate(said)]
    precise = [
        recalled[place] and (holds(place, (cite,)) or not holds(place, _without(statement.cites, cite)))
        for place, statement in enumerate(said)
        for cite in statement.cites
    ]
    return sum(recalled) / len(said), sum(precise) / len(precise) if precise else 0.0
