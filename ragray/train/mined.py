"""Mined questions as arrays. In: triples by question, vectors or texts of their passages. Out: what a retriever is trained on.

Q questions, P places: a positive and its negatives, M passages, D dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ragray.retrieve.mining.triples import Triple
from ragray.types import Example

NONE = -1
"""Number of a passage that is not there."""


@dataclass(frozen=True, slots=True)
class MinedQuestions:
    """Questions with numbers of passages: ``passages_QP`` has the positive first, `NONE` where a question has fewer negatives.

    ``gold`` are the passages that answer a question, ``margins_QN`` those of the reranker (NaN where there is none) for each
    negative, ``groups`` are equal for questions that must not share a batch. Passages have the vectors of an index, (M, D), where
    no passage encoder trains.
    """

    examples: tuple[Example, ...]
    passages_QP: np.ndarray
    gold: tuple[tuple[int, ...], ...]
    margins_QN: np.ndarray
    groups: tuple[int, ...]
    passage_ids: tuple[str, ...]
    texts: tuple[str, ...]
    vectors_MD: np.ndarray | None = None

    @classmethod
    def of(cls, questions: Sequence[Sequence[Triple]]) -> MinedQuestions:
        """Number the passages of all triples, in the order in which they come."""
        texts: dict[str, str] = {}
        for triples in questions:
            for triple in triples:
                texts.setdefault(triple.positive_id, triple.positive)
                if triple.negative_id is not None:
                    texts.setdefault(triple.negative_id, triple.negative or "")
        numbers = {name: number for number, name in enumerate(texts)}
        width = max(sum(triple.negative_id is not None for triple in triples) for triples in questions)
        passages_QP = np.full((len(questions), 1 + width), NONE)
        margins_QN = np.full((len(questions), width), np.nan, dtype=np.float32)
        for row, triples in enumerate(questions):
            _fill(passages_QP[row], margins_QN[row], triples, numbers)
        keys = [min((triples[0].positive_id, *triples[0].gold_ids)) for triples in questions]
        known = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        return cls(
            examples=tuple(
                Example(triples[0].id, triples[0].question, (), triples[0].gold_ids) for triples in questions
            ),
            passages_QP=passages_QP,
            gold=tuple(_numbers({triples[0].positive_id, *triples[0].gold_ids}, numbers) for triples in questions),
            margins_QN=margins_QN,
            groups=tuple(known[key] for key in keys),
            passage_ids=tuple(texts),
            texts=tuple(texts.values()),
        )


def _fill(passages_P: np.ndarray, margins_N: np.ndarray, triples: Sequence[Triple], numbers: Mapping[str, int]) -> None:
    passages_P[0] = numbers[triples[0].positive_id]
    for place, triple in enumerate(triple for triple in triples if triple.negative_id is not None):
        passages_P[1 + place] = numbers[triple.negative_id or ""]
        margins_N[place] = np.nan if triple.score is None else triple.score


def _numbers(ids: set[str], numbers: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sorted(numbers[name] for name in ids if name in numbers))


def held_out(questions: Sequence[Sequence[Triple]], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the questions to train on, and of those to hold out: about ``share`` of them, drawn by ``seed``.

    Questions of one positive are on the same side: a passage that was trained on is not what is measured.
    """
    by_positive: dict[str, list[int]] = {}
    for number, triples in enumerate(questions):
        by_positive.setdefault(triples[0].positive_id, []).append(number)
    sets, wanted = list(by_positive.values()), round(share * len(questions))
    apart: list[int] = []
    for number in np.random.default_rng([seed, len(questions)]).permutation(len(sets)).tolist():
        if len(apart) >= wanted:
            break
        apart += sets[number]
    out = set(apart)
    return [number for number in range(len(questions)) if number not in out], sorted(out)
