"""Retrieval scored against gold ids. In: ranked hits. Out: recall at k and mean reciprocal rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragray.types import Hit


@dataclass(frozen=True, slots=True)
class RankingScores:
    """Means over the questions that have gold ids, in percent: ``recall[k]`` a gold passage is among the first k; ``mrr``."""

    recall: dict[int, float]
    mrr: float
    num_questions: int


def gold_rank(hits: Sequence[Hit], gold_ids: Sequence[str]) -> int | None:
    """Return the rank, from 1, of the first hit whose passage or document is gold."""
    for rank, hit in enumerate(hits, start=1):
        if hit.passage.id in gold_ids or hit.passage.document_id in gold_ids:
            return rank
    return None


def ranking_scores(ranks: Sequence[int | None], recall_at: Sequence[int]) -> RankingScores:
    """Average over questions, given the rank of each one's first gold passage (None: not found at all)."""
    total = max(len(ranks), 1)
    found = [rank for rank in ranks if rank is not None]
    recall = {k: 100 * sum(rank <= k for rank in found) / total for k in recall_at}
    return RankingScores(recall, 100 * sum(1 / rank for rank in found) / total, len(ranks))
