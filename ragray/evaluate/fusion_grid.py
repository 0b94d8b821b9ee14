"""What hybrid search finds at every weight and depth. In: a retriever, judged queries. Out: rankings of documents, each search done once.

N queries, K results. A depth is the number of passages that dense and lexical search each give to the fusion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ragray.evaluate.encoded import EncodedQueries
from ragray.evaluate.judged import Qrels
from ragray.evaluate.retrieval import Ids, hit_ids, judged_column
from ragray.index.search.result import BothScores, SearchResult
from ragray.progress import Progress
from ragray.retrieve.fuse import rank_rows, score_rows
from ragray.retrieve.pairs import PAIRED, lifted, pair_shares
from ragray.retrieve.retriever import LocalRetriever
from ragray.types import Hit

DEPTHS = (20, 50, 100, 200)
"""Passages that are tried as `retrieve.candidates`."""

BATCH = 64
"""Queries that are searched for together."""

LOOKED_AT = 20
"""Documents of a ranking that are kept: what is measured looks at no more."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What dense and what lexical search found for N queries, by depth, and the document (or passage) of every row found.

    The results hold rows and scores, no hits: of thousands of queries they would not fit into memory.
    """

    names: tuple[str, ...]
    parts: Mapping[int, tuple[SearchResult, SearchResult]]
    documents: Mapping[int, str]
    spread: float
    """The unit of dense scores (see `ragray.index.search.spread`)."""
    pair_weight: float
    shares: tuple[Mapping[int, float], ...]
    """For each query which share of its pairs of terms a row keeps together (see `ragray.retrieve.pairs`)."""

    @property
    def depth(self) -> int:
        """The greatest depth."""
        return max(self.parts)

    def dense(self) -> list[list[str]]:
        """Return the documents that dense search finds for each query, best first."""
        return self._ranked(self.parts[self.depth][0].rows_NK)

    def lexical(self) -> list[list[str]]:
        """Return the documents that lexical search finds for each query, best first."""
        return self._ranked(self.parts[self.depth][1].rows_NK)

    def convex(self, dense_weight: float, depth: int) -> list[list[str]]:
        """Return what `retrieve.fusion=convex` finds."""
        found = score_rows(self.parts[depth], dense_weight, self.spread, 2 * depth)
        return self._ranked(lifted(found, self.shares, (1 - dense_weight) * self.pair_weight, 2 * depth).rows_NK)

    def by_ranks(self, rrf_k: int, depth: int) -> list[list[str]]:
        """Return what `retrieve.fusion=rrf` finds."""
        return self._ranked(rank_rows(self.parts[depth], 2 * depth, rrf_k=rrf_k).rows_NK)

    def _ranked(self, rows_NK: np.ndarray) -> list[list[str]]:
        return [list(_first(LOOKED_AT, rows, self.documents)) for rows in rows_NK.tolist()]


def _first(number: int, rows: Sequence[int], documents: Mapping[int, str]) -> dict[str, None]:
    """Return the first documents of some rows, each once; row -1 stands for nothing."""
    found: dict[str, None] = {}
    for row in rows:
        if len(found) == number or row < 0:
            break
        found[documents[row]] = None
    return found


def search_once(
    stage: str, retriever: LocalRetriever, queries: EncodedQueries, relevant: Qrels, where: str
) -> Candidates:
    """Search for every query once by vectors and once by BM25, at the greatest depth; smaller depths are what stands first.

    In an approximate index a search at a smaller depth may find slightly less. Judgements name documents or passages, as
    `judged_column` tells.
    """
    depth, ids = max(DEPTHS), dict[int, Ids]()
    found: dict[int, list[tuple[SearchResult, SearchResult]]] = {depth: [] for depth in DEPTHS}
    shares: list[dict[int, float]] = []
    with Progress(stage, total=len(queries.texts), unit="queries searched") as progress:
        for _, texts, vectors_BD in queries.batches(BATCH):
            assert vectors_BD is not None  # hybrid search needs an encoder
            dense, lexical = retriever.candidates(texts, vectors_BD, depth, where)
            ids.update(_ids(dense) | _ids(lexical))
            shares += _shares(retriever, texts, (dense, lexical))
            for one in DEPTHS:
                found[one].append((_cut(dense, one), _cut(lexical, one)))
            progress.advance(len(texts))
    parts = {
        one: (_joined([d for d, _ in batches]), _joined([x for _, x in batches])) for one, batches in found.items()
    }
    names = tuple(queries.texts)
    by_query = {
        name: [ids[row] for part in parts[depth] for row in part.rows_NK[number].tolist() if row >= 0]
        for number, name in enumerate(names)
    }
    column = judged_column(by_query, relevant)
    documents = {row: pair[column] for row, pair in ids.items()}
    return Candidates(names, parts, documents, retriever.spread, retriever.pair_weight, tuple(shares))


def _ids(result: SearchResult) -> dict[int, Ids]:
    return {
        row: pair
        for rows, hits in zip(result.rows_NK.tolist(), result.hits, strict=True)
        for row, pair in zip(rows, hit_ids(hits), strict=False)
    }


def _shares(
    retriever: LocalRetriever, texts: Sequence[str], parts: Sequence[SearchResult]
) -> Iterator[dict[int, float]]:
    """Yield for each query the shares of the rows that may stand first at some weight and depth; none where they weigh nothing.

    A row that `PAIRED` others exceed in both scores never does: those stand before it at every weight, and are found wherever it is.
    """
    for number, text in enumerate(texts):
        found: dict[int, tuple[Hit, float, float]] = {}
        for part in parts if retriever.pair_weight else ():
            assert part.both is not None  # the retriever searches with texts and vectors
            dense_K, lexical_K = part.both.dense_NK[number].tolist(), part.both.lexical_NK[number].tolist()
            scored = zip(part.hits[number], dense_K, lexical_K, strict=False)
            found.update(zip(part.rows_NK[number].tolist(), scored, strict=False))
        dense_C, lexical_C = np.array([scores for _, *scores in found.values()]).reshape(-1, 2).T
        above_CC = (dense_C > dense_C[:, None]) & (lexical_C > lexical_C[:, None])
        rows = np.array(list(found))[above_CC.sum(axis=1) < PAIRED].tolist()
        yield dict(zip(rows, pair_shares(text, [found[row][0] for row in rows], retriever.analyzer), strict=True))


def _cut(result: SearchResult, depth: int) -> SearchResult:
    """Return the first ``depth`` of every query's results: rows and scores alone."""
    return SearchResult(
        result.rows_NK[:, :depth],
        result.scores_NK[:, :depth],
        result.vectors_NKD[:, :depth, :0],
        [],
        result.both and result.both.part(slice(None), depth),
    )


def _joined(batches: Sequence[SearchResult]) -> SearchResult:
    """Return the results of all queries, which have equally many columns."""
    rows, scores, vectors = (
        np.concatenate([getattr(part, name) for part in batches]) for name in ("rows_NK", "scores_NK", "vectors_NKD")
    )
    given = [part.both for part in batches if part.both is not None]
    dense, lexical, limit = (
        np.concatenate([getattr(both, name) for both in given]) for name in ("dense_NK", "lexical_NK", "limit_N")
    )
    return SearchResult(rows, scores, vectors, [], BothScores(dense, lexical, limit))
