"""The prior p(passage | question). In: the passages of a question. Out: the logarithm of each one's share. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ragray.types import Hit

Scores = Literal["dense", "score"]
"""What a prior is made from: values of `generate.prior`."""


def log_prior(hits: Sequence[Hit], temperature: float, *, of: Scores = "dense") -> list[float]:
    """Return log p(passage | question), in the order of the hits; [0.0] without any (closed book).

    It is the softmax of the dense inner products by ``temperature``, as in training (Lewis et al. 2020, arXiv:2005.11401,
    section 2.2), whatever ranked the passages: scores of BM25, of a fusion or of a reranker lie on other scales. Where no
    question encoder was at hand (lexical retrieval), the share of the passage at rank r is proportional to 1 / r. With ``of`` "score"
    it is the softmax of the scores that ranked the passages, for those who set the temperature by their scale.
    """
    if not hits:
        return [0.0]
    scores = [hit.score if of == "score" else hit.dense for hit in hits]
    known = [score for score in scores if score is not None]
    if len(known) == len(hits):
        logits_K = np.array(known, dtype=np.float64) / temperature
    else:
        logits_K = -np.log(np.arange(1, len(hits) + 1, dtype=np.float64))
    shifted_K = logits_K - logits_K.max()
    found: list[float] = (shifted_K - np.log(np.exp(shifted_K).sum())).tolist()
    return found
