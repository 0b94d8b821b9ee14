"""Choosing a question's positive and its hard negatives. In: gold passages, candidates, accepted answers. Out: both, or the reasons. Pure.

Moreira et al. 2024, "NV-Retriever", arXiv:2407.15831: a candidate that scores as high as the positive is likely to answer too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ragray.config import MineConfig
from ragray.embed.passage_text import passage_text
from ragray.text.shingles import shingles
from ragray.types import Hit

GOLD, ANSWER, SCORE, REPEATS = "gold", "holds an answer", "scores too near the positive", "repeats the positive"
"""Why a candidate is no negative."""

Holds = Callable[[Hit], bool]
"""Whether a passage holds an accepted answer of the question."""


@dataclass(frozen=True, slots=True)
class Mined:
    """A question's positive, its negatives, hardest first, the ids of all passages that answer it, and how many candidates were
    refused for each reason."""

    positive: Hit
    negatives: tuple[Hit, ...]
    gold_ids: tuple[str, ...]
    refused: Mapping[str, int]


def choose_positive(gold: Sequence[Hit], candidates: Sequence[Hit], holds: Holds) -> Hit | None:
    """Return the passage that a question is to find, None where there is none.

    Of gold passages it is the one that holds an answer and has the largest inner product; where none of them does (the answer
    may be written differently), the one with the largest inner product. Without gold passages it is the first candidate that
    holds an answer.
    """
    if not gold:
        return next((hit for hit in candidates if holds(hit)), None)
    return max(gold, key=lambda hit: (holds(hit), similarity(hit)))


def choose_negatives(
    positive: Hit, gold: Sequence[Hit], candidates: Sequence[Hit], holds: Holds, settings: MineConfig
) -> Mined:
    """Return the first ``settings.negatives`` candidates that are no answer to the question, as far as can be told.

    Left out are gold passages, passages that hold an accepted answer, those whose inner product with the question is not
    below the positive's by more than ``margin`` and not below ``share`` of it, and near duplicates of the positive.
    """
    gold_ids = {hit.passage.id for hit in gold} | {positive.passage.id}
    limit = min(settings.share * similarity(positive), similarity(positive) - settings.margin)
    told = shingles(passage_text(positive.passage))
    chosen: list[Hit] = []
    refused: Counter[str] = Counter()
    for hit in candidates:
        if len(chosen) == settings.negatives:
            break
        if hit.passage.id in gold_ids:
            refused[GOLD] += 1
        elif similarity(hit) >= limit:
            refused[SCORE] += 1
        elif holds(hit):
            refused[ANSWER] += 1
        elif _jaccard(told, shingles(passage_text(hit.passage))) >= settings.max_similarity:
            refused[REPEATS] += 1
        else:
            chosen.append(hit)
    return Mined(positive, tuple(chosen), tuple(sorted(gold_ids)), refused)


def similarity(hit: Hit) -> float:
    """Return the inner product of a hit's passage and the question.

    Raises:
        ValueError: the hit was found without the question's vector.
    """
    if hit.dense is None:
        raise ValueError(
            f"passage '{hit.passage.id}' has no inner product: the question was searched for without its vector"
        )
    return hit.dense


def _jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / max(1, len(first | second))
