"""Measures of retrieval. In: the ranks of gold passages, the passages read. Out: recall at k, MRR, nDCG, answer in context. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ragray.evaluate.answers import contains, metric_of
from ragray.evaluate.measures.measured import Measured, mean_of
from ragray.evaluate.ranking import ndcg
from ragray.evaluate.records import Answered
from ragray.types import Passage


def ranking_measures(answered: Sequence[Answered], recall_at: Sequence[int]) -> Iterator[Measured]:
    """Yield recall at each k, the mean reciprocal rank, and nDCG at the largest k, over the questions that have gold ids.

    As in `ragray.evaluate.ranking`, recall is the share of questions of which a gold passage is among the first k.
    """
    first = [(one.gold_rank, bool(one.example.gold_ids)) for one in answered]
    for k in recall_at:
        shares = [float(rank is not None and rank <= k) if asked else None for rank, asked in first]
        yield mean_of(f"recall@{k}", shares, "a gold passage is among the first")
    yield mean_of("mrr", [(1 / rank if rank else 0.0) if asked else None for rank, asked in first])
    deepest = max(recall_at)
    yield mean_of(f"ndcg@{deepest}", [_ndcg(one, deepest) for one in answered], "each gold id has gain 1")


def _ndcg(one: Answered, k: int) -> float | None:
    gold = one.example.gold_ids
    if not gold:
        return None
    ranked = [""] * max((rank for rank in one.gold_ranks if rank is not None), default=0)
    for name, rank in zip(gold, one.gold_ranks, strict=True):
        if rank is not None:
            ranked[rank - 1] = name
    return ndcg(ranked, dict.fromkeys(gold, 1), k)


def answer_in_context(answered: Sequence[Answered], passages: Mapping[str, Passage], metric: str) -> Measured:
    """Return the share of questions of which an accepted answer stands in a passage that was read, title or text."""
    shares = [_in_context(one, passages, metric) if one.sources else None for one in answered]
    return mean_of("answer_in_context", shares, "an accepted answer stands in a passage that was read")


def _in_context(one: Answered, passages: Mapping[str, Passage], metric: str) -> float:
    chosen = metric_of(one.example, metric)
    texts = [f"{passages[name].title}\n{passages[name].text}" for name in one.sources if name in passages]
    return max((contains(text, answer, chosen) for text in texts for answer in one.example.answers), default=0.0)
