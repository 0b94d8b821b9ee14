"""Retrieval evaluation. In: an index, judged queries. Out: nDCG, recall, MRR with intervals, and how hybrid compares with its parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ragray.config import Config
from ragray.evaluate.encoded import EncodedQueries, encode_queries
from ragray.evaluate.gold import warn_of_missing_documents
from ragray.evaluate.intervals import Interval, interval, intervals
from ragray.evaluate.judged import Qrels, judged_by_qrels
from ragray.evaluate.ranking import ndcg, recall, reciprocal_rank
from ragray.retrieve.load import load_retriever
from ragray.retrieve.retriever import LocalRetriever, Mode
from ragray.types import Hit

logger = logging.getLogger("ragray")

RECALL_AT = (1, 5, 10, 20, 100)
DEPTH = 100
"""Documents that are looked at for every query."""

MAX_PASSAGES = 100_000
BATCH = 64
"""Queries searched together at that depth; fewer where the search goes deeper."""

PARTS: tuple[Mode, ...] = ("dense", "lexical")
"""The modes that hybrid search joins, in the order of `LocalRetriever.candidates`."""

Ids = tuple[str, str]
"""Document id and passage id of a hit."""


@dataclass(frozen=True, slots=True)
class PartComparison:
    """One of the two searches that hybrid search joins: its own nDCG@10, and what hybrid search gains, query by query."""

    ndcg_at_10: float
    gain: Interval
    """95% interval of the mean of nDCG@10 of hybrid less that of this search: below 0, hybrid search is worse."""


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """Means over the queries that have a relevant document, as fractions."""

    ndcg_at_10: float
    recall_at: Mapping[int, float]
    mrr_at_10: float
    intervals: Mapping[str, Interval]
    """By the name of the metric, such as ``ndcg@10``: 95% of the means of resampled queries lie within."""
    parts: Mapping[str, PartComparison]
    """With mode hybrid, by mode: the searches that it joins."""
    num_queries: int
    num_refused: int
    """Queries that are blank or cannot be encoded."""
    num_left_out: int
    """Queries of the file that have no relevant document."""
    num_missing: int
    """Queries that have one, but are not in the file."""
    num_unknown_documents: int
    """Relevant documents that the index does not hold: no search can find them."""
    mode: str
    snapshot: str

    def to_json(self) -> dict[str, object]:
        """Return the report with the usual names of the metrics, such as ``ndcg@10``."""
        return {
            "ndcg@10": self.ndcg_at_10,
            **{f"recall@{k}": value for k, value in self.recall_at.items()},
            "mrr@10": self.mrr_at_10,
            "interval": {name: list(edges) for name, edges in self.intervals.items()},
            **{
                f"hybrid_over_{mode}": {"ndcg@10": part.ndcg_at_10, "gain": list(part.gain)}
                for mode, part in self.parts.items()
            },
            "num_queries": self.num_queries,
            "num_refused": self.num_refused,
            "num_left_out": self.num_left_out,
            "num_missing": self.num_missing,
            "num_unknown_documents": self.num_unknown_documents,
            "mode": self.mode,
            "snapshot": self.snapshot,
        }


def evaluate_retrieval(
    index: Path, queries: Path, qrels: Path, config: Config, *, run: Path | None = None
) -> RetrievalReport:
    """Search an index for every judged query as ``config.retrieve`` says, and score what is found.

    Documents are judged by document id or, where no judgement names a document, by passage id. A document that was split
    counts once, at the rank of its best passage; the search continues until it has 100 documents. Each query is encoded once; one
    that is blank or cannot be encoded is refused alone. With mode hybrid the log says where it ranks below one of its parts.

    Raises:
        InputError: a file cannot be read (the message names line and field), or no query has a relevant document.
    """
    judged = judged_by_qrels(queries, qrels)
    retriever = load_retriever(index, run, config)
    num_unknown = warn_of_missing_documents("evaluate", index, retriever.snapshot, judged)
    asked = encode_queries("evaluate", retriever, judged)
    rankings = _rankings(retriever, asked, judged.relevant)
    measured = {
        name: [score(ranked, judged.relevant[query]) for query, ranked in rankings.items()]
        for name, score in _MEASURES.items()
    }
    means = {name: _mean(values) for name, values in measured.items()}
    mode, where = config.retrieve.mode, config.retrieve.where
    parts = _parts(retriever, asked, judged.relevant, measured["ndcg@10"], where) if mode == "hybrid" else {}
    for name, part in parts.items():
        _warn_if_below(name, part, means["ndcg@10"])
    edges = intervals(np.array(list(measured.values())).T)
    return RetrievalReport(
        ndcg_at_10=means["ndcg@10"],
        recall_at={k: means[f"recall@{k}"] for k in RECALL_AT},
        mrr_at_10=means["mrr@10"],
        intervals=dict(zip(means, edges, strict=True)),
        parts=parts,
        num_queries=len(asked.texts),
        num_refused=len(asked.refused),
        num_left_out=judged.num_left_out,
        num_missing=judged.num_missing,
        num_unknown_documents=num_unknown,
        mode=mode,
        snapshot=retriever.snapshot,
    )


_MEASURES: Mapping[str, Callable[[Sequence[str], Mapping[str, int]], float]] = {
    "ndcg@10": partial(ndcg, k=10),
    **{f"recall@{k}": partial(recall, k=k) for k in RECALL_AT},
    "mrr@10": partial(reciprocal_rank, k=10),
}
"""By name: what a ranking of document ids is worth, given the judgements of its query."""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _rankings(retriever: LocalRetriever, queries: EncodedQueries, relevant: Qrels) -> dict[str, list[str]]:
    """Return the ids that each query finds, best first; the number of passages doubles until there are enough documents."""
    found: dict[str, list[Ids]] = {}
    asked, depth = queries, DEPTH
    while asked.texts:
        for names, texts, vectors_BD in asked.batches(max(1, BATCH * DEPTH // depth)):
            results = retriever.search(texts, depth, vectors_ND=vectors_BD)
            found.update(zip(names, (hit_ids(result.hits) for result in results), strict=True))
        column = judged_column(found, relevant)
        ranked = {name: unique_ids(ids, column) for name, ids in found.items()}
        short = {name for name in asked.texts if len(ranked[name]) < DEPTH and len(found[name]) == depth < MAX_PASSAGES}
        asked, depth = asked.only(short), 2 * depth
    return {name: ranked[name] for name in queries.texts}


def judged_column(found: Mapping[str, Sequence[Ids]], relevant: Qrels) -> int:
    """Return what the judgements name: documents (0), or passages (1) where none names a document that was found."""
    return 0 if _names_any(found, relevant, 0) or not _names_any(found, relevant, 1) else 1


def _names_any(found: Mapping[str, Sequence[Ids]], relevant: Qrels, column: int) -> bool:
    return any(pair[column] in relevant[name] for name, ids in found.items() for pair in ids)


def hit_ids(hits: Sequence[Hit]) -> list[Ids]:
    """Return document id and passage id of every hit."""
    return [(hit.passage.document_id or hit.passage.id, hit.passage.id) for hit in hits]


def unique_ids(ids: Sequence[Ids], column: int) -> list[str]:
    """Return the ids of one column, each at its first place."""
    return list(dict.fromkeys(pair[column] for pair in ids))


def _parts(
    retriever: LocalRetriever, queries: EncodedQueries, relevant: Qrels, hybrid: Sequence[float], where: str
) -> dict[str, PartComparison]:
    """Compare nDCG@10 of hybrid search with that of the two searches that it joins, on the same candidates."""
    found: dict[str, dict[str, list[Ids]]] = {mode: {} for mode in PARTS}
    for names, texts, vectors_BD in queries.batches(BATCH):
        assert vectors_BD is not None  # hybrid search needs an encoder
        for mode, part in zip(PARTS, retriever.candidates(texts, vectors_BD, DEPTH, where), strict=True):
            found[mode].update(zip(names, map(hit_ids, part.hits), strict=True))
    return {mode: _compared(ids, relevant, hybrid) for mode, ids in found.items()}


def _compared(found: Mapping[str, Sequence[Ids]], relevant: Qrels, hybrid: Sequence[float]) -> PartComparison:
    column = judged_column(found, relevant)
    own = [ndcg(unique_ids(ids, column), relevant[name], 10) for name, ids in found.items()]
    return PartComparison(_mean(own), interval([both - one for both, one in zip(hybrid, own, strict=True)]))


def _warn_if_below(mode: str, part: PartComparison, hybrid: float) -> None:
    """Say so where hybrid search is worse than one of its parts beyond what chance explains."""
    low, high = part.gain
    if high < 0:
        logger.warning(
            "evaluate: hybrid is below %s on these queries: nDCG@10 %.3f against %.3f (95%% interval of the difference %.3f to %.3f); "
            "run ragray index tune, or search with --mode %s",
            *(mode, hybrid, part.ndcg_at_10, low, high, mode),
        )
