"""Whether a retriever gained by training. In: held-out questions, encoders. Out: recall before and after, with the interval of the gain.

Q questions, M passages, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ragray.embed.encoder import Encoder
from ragray.evaluate.intervals import interval
from ragray.evaluate.ranking import first_gold_rank
from ragray.index.search.reader import IndexReader
from ragray.run import DevRecall
from ragray.types import Example

BATCH = 64
"""Questions that are encoded and searched for together."""

Ranks = Sequence[int | None]
"""Of the first gold passage of each question, from 1; None where the first k hold none."""


def dev_recall(before: Ranks, after: Ranks, k: int, *, among: Literal["index", "pool"] = "index") -> DevRecall:
    """Compare two encoders by what they found for the same questions, in percent."""
    found = np.array([[rank is not None for rank in ranks] for ranks in (before, after)], dtype=np.float64) * 100
    return DevRecall(
        k=k,
        num_questions=len(before),
        before=float(found[0].mean()),
        after=float(found[1].mean()),
        interval=interval((found[1] - found[0]).tolist()),
        among=among,
    )


def ranks_in_index(reader: IndexReader, encoder: Encoder, examples: Sequence[Example], k: int) -> Ranks:
    """Return the ranks of gold passages in dense search."""
    ranks: list[int | None] = []
    for start in range(0, len(examples), BATCH):
        batch = examples[start : start + BATCH]
        found = reader.search(encoder.encode_questions([example.question for example in batch]), k)
        ranks += [first_gold_rank(hits, example.gold_ids) for hits, example in zip(found.hits, batch, strict=True)]
    return ranks


def ranks_in_pool(
    encoders: tuple[Encoder, Encoder],
    questions: Sequence[str],
    passages: Sequence[str],
    gold: Sequence[Sequence[int]],
    k: int,
) -> Ranks:
    """Return the ranks of gold passages, given by their numbers, among some passages; encoders of questions and of passages."""
    question_QD, passages_MD = encoders[0].encode_questions(questions), encoders[1].encode(passages)
    scores_QM = question_QD @ passages_MD.T
    best_Q = np.array([max(scores_M[list(own)]) for scores_M, own in zip(scores_QM, gold, strict=True)])
    ranks_Q = 1 + (scores_QM > best_Q[:, None]).sum(1)
    return [rank if rank <= k else None for rank in ranks_Q.tolist()]
