"""Neighbouring terms. In: what was found, its queries. Out: the same, with BM25 scores that count pairs of terms kept together. Pure.

M passages of one query, T terms of all its passages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ragray.embed.passage_text import passage_text
from ragray.index.search.result import SearchResult
from ragray.text.analyzer import analyze

SATURATION = 0.9
"""Of the count of a pair, as `k1` of BM25."""


def with_pairs(found: SearchResult, queries: Sequence[str], analyzer: str, weight: float) -> SearchResult:
    """Add to each BM25 score of `SearchResult.both` what pairs of neighbouring terms are worth; rows keep their order.

    BM25 knows no order of words. Here each two terms that follow one another in the query, and c times in the passage, add
    ``weight`` * c / (c + 0.9): the ordered pairs of the sequential dependence model (Metzler and Croft 2005), all weighing the same.
    """
    if found.both is None:
        return found
    texts = {hit.passage.id: passage_text(hit.passage) for hits in found.hits for hit in hits}
    ids, hashes = analyze([*queries, *texts.values()], analyzer)
    _, stems = np.unique(hashes, return_inverse=True)
    terms = [stems[row] for row in ids]
    passages = dict(zip(texts, terms[len(queries) :], strict=True))
    lexical_NK = found.both.lexical_NK.copy()
    for number, hits in enumerate(found.hits):
        own = [passages[hit.passage.id] for hit in hits]
        lexical_NK[number, : len(hits)] += weight * _pair_scores(terms[number], own, len(stems))
    return replace(found, both=replace(found.both, lexical_NK=lexical_NK))


def _pair_scores(query: np.ndarray, passages: Sequence[np.ndarray], num_terms: int) -> np.ndarray:
    """Return the sum of the saturated counts of a query's pairs in each passage, (M,) float32."""
    lengths = [len(passage) for passage in passages]
    passage_T, terms_T = np.repeat(np.arange(len(passages)), lengths), np.concatenate([query[:0], *passages])
    inside_T = passage_T[1:] == passage_T[:-1]
    pairs_T, passage_T = _pairs(terms_T, num_terms)[inside_T], passage_T[1:][inside_T]
    scores_M = np.zeros(len(passages), np.float32)
    for pair, times in Counter(_pairs(query, num_terms).tolist()).items():
        counts_M = np.bincount(passage_T[pairs_T == pair], minlength=len(passages))
        scores_M += (times * counts_M / (counts_M + SATURATION)).astype(np.float32)
    return scores_M


def _pairs(terms: np.ndarray, num_terms: int) -> np.ndarray:
    """Return one number for each two neighbouring terms."""
    return np.asarray(terms[:-1] * num_terms + terms[1:])
