"""Retrieval measured. In: an index, queries, judgements of relevance (as BEIR and TREC have them). Out: nDCG, recall, MRR."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragray.config import Config
from ragray.errors import InputError
from ragray.evaluate.ranking import ndcg, recall, reciprocal_rank
from ragray.index.store.live import missing_ids
from ragray.index.store.snapshot import read_snapshot
from ragray.retrieve.load import load_retriever
from ragray.retrieve.retriever import LocalRetriever
from ragray.text.checks import is_blank, require_utf8
from ragray.types import Hit

logger = logging.getLogger("ragray")

RECALL_AT = (1, 5, 10, 20, 100)
DEPTH = 100
"""Documents that are looked at for every query."""

MAX_PASSAGES = 100_000
BATCH = 64
"""Queries searched together at that depth; fewer where the search goes deeper."""

RELEVANCE = r"-?\d{1,15}"
HEADER = r"(?i)(query|corpus|doc|document|passage)[-_ ]?(id)?|qid|topic|docno|score|rel|relevance|label"
"""A column's name: a first line without any is no header, but a judgement."""

Qrels = Mapping[str, Mapping[str, int]]
"""Relevance by query and document."""


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """Means over the queries that have a relevant document, as fractions."""

    ndcg_at_10: float
    recall_at: Mapping[int, float]
    mrr_at_10: float
    num_queries: int
    num_left_out: int
    """Queries of the file that have no relevant document."""
    num_missing: int
    """Queries that have one, but are not in the file."""
    num_unknown_documents: int
    """Relevant documents that the index does not hold: no search can find them."""
    mode: str
    snapshot: str

    def to_json(self) -> dict[str, float | int | str]:
        """Return the report under the names that the field uses."""
        return {
            "ndcg@10": self.ndcg_at_10,
            **{f"recall@{k}": value for k, value in self.recall_at.items()},
            "mrr@10": self.mrr_at_10,
            "num_queries": self.num_queries,
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
    counts once, at the rank of its best passage; passages are searched until 100 documents are there.

    Raises:
        InputError: a file cannot be read (the message names line and field), or no query has a relevant document.
    """
    texts, judged = read_queries(queries), read_qrels(qrels)
    relevant = {name: found for name, found in judged.items() if any(gain > 0 for gain in found.values())}
    asked = [name for name in texts if name in relevant]
    if not asked:
        raise InputError(
            f"{qrels}: no query of {queries} has a relevant document (relevance 1 or more); are the ids of the same kind?"
        )
    retriever = load_retriever(index, run, config)
    wanted = {name for query in asked for name, gain in relevant[query].items() if gain > 0}
    unknown = missing_ids(index, read_snapshot(index, retriever.snapshot), wanted)
    if unknown:
        logger.warning(
            "evaluate: %d of %d relevant documents are not in snapshot %s, so that no search finds them (the first by name: '%s')",
            *(len(unknown), len(wanted), retriever.snapshot, min(unknown)),
        )
    rankings = _rankings(retriever, {name: texts[name] for name in asked}, relevant)
    scored = [(rankings[name], relevant[name]) for name in asked]
    return RetrievalReport(
        ndcg_at_10=_mean([ndcg(ranked, gains, 10) for ranked, gains in scored]),
        recall_at={k: _mean([recall(ranked, gains, k) for ranked, gains in scored]) for k in RECALL_AT},
        mrr_at_10=_mean([reciprocal_rank(ranked, gains, 10) for ranked, gains in scored]),
        num_queries=len(asked),
        num_left_out=len(texts) - len(asked),
        num_missing=len(relevant) - len(asked),
        num_unknown_documents=len(unknown),
        mode=config.retrieve.mode,
        snapshot=retriever.snapshot,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _rankings(retriever: LocalRetriever, texts: Mapping[str, str], relevant: Qrels) -> dict[str, list[str]]:
    """Return the ids that each query finds, best first; the number of passages doubles until there are enough documents."""
    found: dict[str, list[tuple[str, str]]] = {}
    asked, depth = list(texts), DEPTH
    while asked:
        step = max(1, BATCH * DEPTH // depth)
        for start in range(0, len(asked), step):
            batch = asked[start : start + step]
            hits = retriever.search([texts[name] for name in batch], depth)
            found.update(zip(batch, map(_ids, hits), strict=True))
        column = 0 if _names_any(found, relevant, 0) or not _names_any(found, relevant, 1) else 1
        ranked = {name: list(dict.fromkeys(pair[column] for pair in ids)) for name, ids in found.items()}
        asked = [name for name in asked if len(ranked[name]) < DEPTH and len(found[name]) == depth < MAX_PASSAGES]
        depth *= 2
    return ranked


def _names_any(found: Mapping[str, Sequence[tuple[str, str]]], relevant: Qrels, column: int) -> bool:
    """Say whether a judgement names a document (column 0) or a passage (column 1) that its query found."""
    return any(pair[column] in relevant[name] for name, ids in found.items() for pair in ids)


def _ids(hits: Sequence[Hit]) -> list[tuple[str, str]]:
    """Return document id and passage id of every hit."""
    return [(hit.passage.document_id or hit.passage.id, hit.passage.id) for hit in hits]


def read_queries(path: Path) -> dict[str, str]:
    """Read queries from JSONL, ``{"id", "text"}`` (or BEIR's ``"_id"``); an id maps to its text.

    Raises:
        InputError: names file, line and field.
    """
    queries: dict[str, str] = {}
    for where, line in _lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as err:
            raise InputError(f"{where}: is not JSON ({err}); mend or remove the line") from err
        if not isinstance(record, dict):
            raise InputError(f"{where}: is a JSON {type(record).__name__}, expected an object with id and text")
        name, text = record.get("id", record.get("_id")), record.get("text")
        if not isinstance(name, str):
            raise InputError(f"{where}: field 'id' must be a string (found {name!r})")
        if not isinstance(text, str) or is_blank(text):
            raise InputError(f"{where}: field 'text' must be a text (found {text!r})")
        require_utf8(name, f"{where}: field 'id'")
        require_utf8(text, f"{where}: field 'text'")
        if name in queries:
            raise InputError(f"{where}: id '{name}' stands on an earlier line too; ids must be unique")
        queries[name] = text
    return queries


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements: query, document, relevance, with or without a header, or TREC's four columns (the second is skipped).

    Raises:
        InputError: names file, line and field.
    """
    judged: dict[str, dict[str, int]] = {}
    for number, (where, line) in enumerate(_lines(path)):
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
        if len(fields) not in (3, 4):
            raise InputError(
                f"{where}: has {len(fields)} columns, expected query, document and relevance separated by tabs"
            )
        query, document, relevance = fields[0], fields[-2], fields[-1]
        if not re.fullmatch(RELEVANCE, relevance):
            if number == 0 and any(re.fullmatch(HEADER, field) for field in fields):
                continue
            raise InputError(
                f"{where}: field 'relevance' must be a whole number of at most 15 digits (found {relevance!r:.40})"
            )
        if not query or not document:
            raise InputError(f"{where}: field '{'document' if query else 'query'}' is empty; give its id")
        if judged.setdefault(query, {}).setdefault(document, int(relevance)) != int(relevance):
            raise InputError(
                f"{where}: query '{query}', document '{document}' has another relevance on an earlier line"
            )
    return judged


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield where every line stands that is not empty, and the line."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", line.rstrip("\r\n")
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror}); check the path") from err
    except UnicodeDecodeError as err:
        raise InputError(f"{path}: is not UTF-8 ({err.reason} at byte {err.start}); convert the file") from err
