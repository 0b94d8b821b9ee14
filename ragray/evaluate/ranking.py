"""Ranking metrics. In: ranked hits or ids, and the relevant ones. Out: recall at k, mean reciprocal rank, nDCG. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

from ragray.types import Hit


@dataclass(frozen=True, slots=True)
class RankingScores:
    """Means over the questions that have gold ids, in percent: ``recall[k]`` (a gold passage is among the first k) and ``mrr``.

    Both are None where no question has gold ids. A gold id that the index does not hold can never be found.
    """

    recall: dict[int, float | None]
    mrr: float | None
    num_questions: int
    num_unknown_gold_ids: int = 0


def gold_ranks(hits: Sequence[Hit], gold_ids: Sequence[str]) -> list[int | None]:
    """Return for each gold id the rank, from 1, of the first hit that it names as passage or document; None where there is none."""
    first: dict[str, int] = {}
    for rank, hit in enumerate(hits, start=1):
        first.setdefault(hit.passage.id, rank)
        first.setdefault(hit.passage.document_id, rank)
    return [first.get(name) for name in gold_ids]


def first_gold_rank(hits: Sequence[Hit], gold_ids: Sequence[str]) -> int | None:
    """Return the rank, from 1, of the first hit whose passage or document is gold."""
    return min((rank for rank in gold_ranks(hits, gold_ids) if rank is not None), default=None)


def ranking_scores(
    ranks: Sequence[int | None], recall_at: Sequence[int], *, num_unknown_gold_ids: int = 0
) -> RankingScores:
    """Average over the questions that have gold ids, given the rank of each one's first gold passage (None: not found at all)."""
    if not ranks:
        return RankingScores(dict.fromkeys(recall_at), None, 0, num_unknown_gold_ids)
    found = [rank for rank in ranks if rank is not None]
    recall: dict[int, float | None] = {k: 100 * sum(rank <= k for rank in found) / len(ranks) for k in recall_at}
    return RankingScores(recall, 100 * sum(1 / rank for rank in found) / len(ranks), len(ranks), num_unknown_gold_ids)


def ndcg(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    """Return the normalised discounted cumulative gain of the first k ids, 0 to 1, as trec_eval has it.

    The gain is the relevance, divided by log2(rank + 1). Ids that are not judged, or judged below 1, have gain 0.
    """
    gains = [max(relevance.get(name, 0), 0) for name in ranked[:k]]
    best = sorted((gain for gain in relevance.values() if gain > 0), reverse=True)[:k]
    return _discounted(gains) / _discounted(best) if best else 0.0


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def recall(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    """Return the share of the relevant ids that is among the first k, 0 to 1."""
    relevant = {name for name, gain in relevance.items() if gain > 0}
    return len(relevant.intersection(ranked[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    """Return 1 / rank of the first relevant id, 0 if the first k hold none."""
    return next((1 / rank for rank, name in enumerate(ranked[:k], start=1) if relevance.get(name, 0) > 0), 0.0)
