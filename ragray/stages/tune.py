"""The stage `index tune`. In: an index, judged queries. Out: how good each search is, and a snapshot with the fusion that fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ragray.config import Config, RetrieveConfig
from ragray.errors import InputError
from ragray.evaluate.encoded import encode_queries
from ragray.evaluate.fusion_fit import Fit, Setting, fit, picked, require_enough, settings
from ragray.evaluate.fusion_grid import DEPTHS, Candidates, search_once
from ragray.evaluate.gold import warn_of_missing_documents
from ragray.evaluate.intervals import Interval, interval
from ragray.evaluate.judged import JudgedQueries, Qrels
from ragray.evaluate.ranking import ndcg, recall
from ragray.index.store.fusion_params import FusionParams
from ragray.index.store.output import IndexOutput, changed_index
from ragray.index.store.snapshot import Snapshot, read_snapshot, tuned
from ragray.retrieve.load import load_retriever

MEASURES = {"ndcg@10": partial(ndcg, k=10), **{f"recall@{k}": partial(recall, k=k) for k in (1, 5, 10)}}
RECALL_AT = (1, 2, 3, 5, 10, 20)
"""Numbers of passages per question whose recall is told, so that k can be chosen."""

_PLAIN = RetrieveConfig()
DEFAULT: Setting = (_PLAIN.dense_weight, _PLAIN.candidates)


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over the queries, 0 to 1, and its 95% interval."""

    mean: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What was measured by search and measure, what was chosen, and the snapshot that is now current.

    The row `tuned` is held out (`ragray.evaluate.fusion_fit.fit`). ``recall_at`` is that of the values that are now in the
    snapshot, by number of documents looked at.
    """

    rows: Mapping[str, Mapping[str, Figure]]
    fit: Fit
    recall_at: Mapping[int, float]
    chosen: FusionParams | None
    snapshot: str
    published: bool
    num_queries: int
    num_refused: int
    num_missing: int
    num_unknown_documents: int

    def to_json(self) -> dict[str, object]:
        """Return everything but the setting of every query."""
        found = self.fit
        return {
            "rows": {row: {name: asdict(one) for name, one in figures.items()} for row, figures in self.rows.items()},
            "gain": {"ndcg@10": found.gain, "interval": found.edges, "clear": found.clear, "enough": found.enough},
            "fitted": {
                "dense_weight": found.best[0],
                "candidates": found.best[1],
                "dense_weight_of_folds": found.weights,
            },
            "default": {"dense_weight": DEFAULT[0], "candidates": DEFAULT[1]},
            "recall_at": self.recall_at,
            "chosen": asdict(self.chosen) if self.chosen else None,
            "snapshot": self.snapshot,
            "published": self.published,
            "num_queries": self.num_queries,
            "num_refused": self.num_refused,
            "num_missing": self.num_missing,
            "num_unknown_documents": self.num_unknown_documents,
        }


def tune_index(
    index: Path, judged: JudgedQueries, config: Config, *, run: Path | None = None, k: int | None = None
) -> TuneReport:
    """Fit dense weight and candidates of hybrid search to judged queries, and let a new snapshot hold them if they gain.

    Every query is encoded once and searched for once by vectors and once by BM25. The fitted values are written if the 95% interval
    of their gain over the defaults in nDCG@10, held out and query by query, lies above 0; else the defaults hold. ``k``, passages
    per question, is written whatever was measured (recall only grows with k, so that no metric of retrieval can choose it) and
    stays as it was without it.

    Raises:
        InputError: the index has no lexical part, holds none of the relevant documents, or there are fewer than 20 queries.
        SnapshotConflictError: another snapshot was made current meanwhile.
    """
    require_enough(len(judged.texts))
    base = read_snapshot(index)
    hybrid = config.model_copy(update={"retrieve": config.retrieve.model_copy(update={"mode": "hybrid"})})
    retriever = load_retriever(index, run, hybrid, snapshot=base.name)
    num_unknown = warn_of_missing_documents("index tune", index, base.name, judged)
    if num_unknown == len(judged.documents):
        raise InputError(
            f"index tune: {index} holds none of the {num_unknown} relevant documents, such as '{min(judged.documents)}'; judgements "
            "must name ids of its documents or passages"
        )
    asked = encode_queries("index tune", retriever, judged)
    require_enough(len(asked.texts))
    found = search_once("index tune", retriever, asked, judged.relevant, config.retrieve.where)
    values = values_of(found, judged.relevant)
    fitted = fit({setting: np.array(own["ndcg@10"]) for setting, own in values.items()}, DEFAULT)
    chosen = _chosen(fitted, k or (base.fusion.k if base.fusion else None))
    snapshot = _published(index, base, chosen)
    weight, depth = fitted.best if fitted.clear else DEFAULT
    return TuneReport(
        rows=_rows(found, judged.relevant, values, fitted),
        fit=fitted,
        recall_at=_recall_at(found.names, found.convex(weight, depth), judged.relevant),
        chosen=chosen,
        snapshot=snapshot.name,
        published=snapshot is not base,
        num_queries=len(asked.texts),
        num_refused=len(asked.refused),
        num_missing=judged.num_missing,
        num_unknown_documents=num_unknown,
    )


def values_of(found: Candidates, relevant: Qrels) -> dict[Setting, dict[str, list[float]]]:
    """Return the value of every query by setting and measure."""
    return {
        (weight, depth): measured(found.names, found.convex(weight, depth), relevant)
        for weight, depth in settings(DEPTHS, DEFAULT)
    }


def measured(names: Sequence[str], ranked: Sequence[Sequence[str]], relevant: Qrels) -> dict[str, list[float]]:
    """Return the value of every query's ranking by measure."""
    return {
        name: [score(one, relevant[query]) for query, one in zip(names, ranked, strict=True)]
        for name, score in MEASURES.items()
    }


def figures(values: Mapping[str, Sequence[float]]) -> dict[str, Figure]:
    """Return mean and interval of every measure."""
    return {name: Figure(sum(own) / len(own), interval(own)) for name, own in values.items()}


def _rows(
    found: Candidates, relevant: Qrels, values: Mapping[Setting, Mapping[str, Sequence[float]]], fitted: Fit
) -> dict[str, dict[str, Figure]]:
    held_out = {
        name: picked({setting: own[name] for setting, own in values.items()}, fitted.held_out) for name in MEASURES
    }
    return {
        "lexical": figures(measured(found.names, found.lexical(), relevant)),
        "dense": figures(measured(found.names, found.dense(), relevant)),
        "default": figures(values[DEFAULT]),
        "tuned": figures(held_out),
    }


def _recall_at(names: Sequence[str], ranked: Sequence[Sequence[str]], relevant: Qrels) -> dict[int, float]:
    pairs = list(zip(names, ranked, strict=True))
    return {k: sum(recall(one, relevant[name], k) for name, one in pairs) / len(pairs) for k in RECALL_AT}


def _chosen(fitted: Fit, k: int | None) -> FusionParams | None:
    """Return what the snapshot is to hold; None where the defaults hold."""
    weight, candidates = fitted.best if fitted.clear else (None, None)
    return None if weight is None and k is None else FusionParams(weight, candidates, k)


def _published(index: Path, base: Snapshot, chosen: FusionParams | None) -> Snapshot:
    """Publish the snapshot that follows ``base``, where it would differ."""
    if chosen == base.fusion:
        return base
    with changed_index(index):
        snapshot = tuned(index, base, chosen)
        IndexOutput(index, base.name).publish(snapshot)
    return snapshot
