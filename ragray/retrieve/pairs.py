"""Neighbouring terms. In: what was found, best first, its queries. Out: the same, those first that keep pairs of terms together. Pure.

N queries, K results, M of them that are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ragray.embed.passage_text import passage_text
from ragray.index.search.result import SearchResult
from ragray.text.analyzer import stems
from ragray.types import Hit

PAIRED = 20
"""Results, at most, whose texts are looked at: more than so many found nothing more (`docs/experiments.md`)."""

REMEMBERED = 4096
"""Passages whose stems are kept: some 10 MB."""

_NEIGHBOURS = re.compile(b"\1(?=\1)")


def with_pairs(found: SearchResult, queries: Sequence[str], analyzer: str, weight: float, k: int) -> SearchResult:
    """Add to the first scores ``weight`` times the share of the query's pairs that the passage keeps together; return the k best.

    BM25 knows no order of words. A pair is two terms that follow one another in the query; a passage keeps it together where they
    are neighbours in either order, stop words aside: the pairs of the sequential dependence model (Metzler and Croft 2005), all
    weighing the same, and each counted once. Ties go to the lower row.
    """
    shares = [
        dict(zip(rows, pair_shares(query, hits[:PAIRED], analyzer) if weight else (), strict=False))
        for query, hits, rows in zip(queries, found.hits, found.rows_NK.tolist(), strict=True)
    ]
    return lifted(found, shares, weight, k)


def pair_shares(query: str, hits: Sequence[Hit], analyzer: str) -> list[float]:
    """Return for each hit which share of the query's pairs its passage keeps together, 0 to 1."""
    terms = stems(query, analyzer)
    pairs, single = list(map(_unordered, pairwise(terms))), frozenset(terms)
    if not pairs:
        return [0.0] * len(hits)
    kept = (_kept(single, _stems(passage_text(hit.passage), analyzer)) for hit in hits)
    return [sum(pair in found for pair in pairs) / len(pairs) for found in kept]


def lifted(found: SearchResult, shares: Sequence[Mapping[int, float]], weight: float, k: int) -> SearchResult:
    """Add ``weight`` times the share of its row to each of the first scores; return the k best, their hits where there are any."""
    scores_NK = found.scores_NK.copy()
    for number, rows in enumerate(found.rows_NK[:, :PAIRED].tolist()):
        scores_NK[number, : len(rows)] += [weight * shares[number].get(row, 0.0) for row in rows]
    order_NK = np.lexsort((found.rows_NK, -scores_NK), axis=1)[:, :k]
    rows_NK, scores_NK = (np.take_along_axis(of_K, order_NK, axis=1) for of_K in (found.rows_NK, scores_NK))
    hits = [
        [replace(own[place], score=score) for place, score in zip(order, scores, strict=True) if place < len(own)]
        for own, order, scores in zip(found.hits, order_NK.tolist(), scores_NK.tolist(), strict=True)
    ]
    return SearchResult(rows_NK, scores_NK, found.vectors_NKD[:, : order_NK.shape[1]], hits)


@lru_cache(maxsize=REMEMBERED)
def _stems(text: str, analyzer: str) -> tuple[str, ...]:
    return tuple(stems(text, analyzer))


def _kept(terms: frozenset[str], passage: Sequence[str]) -> set[tuple[str, str]]:
    """Return the pairs of neighbours in a passage that are both among some terms."""
    of_query = bytes(map(terms.__contains__, passage))
    return {_unordered((passage[at.start()], passage[at.start() + 1])) for at in _NEIGHBOURS.finditer(of_query)}


def _unordered(pair: tuple[str, str]) -> tuple[str, str]:
    first, second = pair
    return (first, second) if first <= second else (second, first)
