"""What a new corpus changes. In: a snapshot, a corpus. Out: what is new or changed, on disk, and which rows of the snapshot are dead.

N live rows of the snapshot, M rows of a table of the corpus, D dim.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ragray.artifact.manifest import publish
from ragray.corpus.dedup import id_key
from ragray.corpus.metadata import from_pairs, pairs_of
from ragray.corpus.table import PASSAGE_FOLDER, SCHEMA_VERSION, Corpus, ShardWriter
from ragray.errors import CorruptArtifactError
from ragray.index.search.reader import IndexReader
from ragray.index.store.live import live_batches
from ragray.index.store.snapshot import Snapshot

DELTA_CORPUS = "corpus"
REUSED_FOLDER = "reused"
SHARD_ROWS = 50_000

UNCHANGED = -2
EMBED = -1
"""What `Comparison.origins` says of a passage; every other number is the global row whose vector serves it."""

WIDTHS = {"id": 16, "text": 16, "facts": 8}
"""Bytes of the digests kept of a passage: its id; title and text to the letter; document id and metadata."""


@dataclass(frozen=True, slots=True)
class Delta:
    """The difference between a snapshot and a corpus.

    ``dead_rows`` are the global rows of passages that are gone or replaced; ``num_embed`` passages lie in the corpus
    `DELTA_CORPUS` of the working folder, and below `REUSED_FOLDER` those whose vectors are found in rows ``reused_rows``.
    """

    added: int
    changed: int
    deleted: int
    unchanged: int
    num_embed: int
    reused_rows: np.ndarray
    dead_rows: np.ndarray


class Comparison:
    """Compares the tables of a corpus with the live rows of a snapshot, by sorted digests: some 75 bytes per passage."""

    def __init__(self, index: Path, snapshot: Snapshot, num_new: int) -> None:
        ids, self._texts, self._facts, self._rows = _digests_of(index, snapshot)
        order = np.argsort(ids)
        self._ids = ids[order]
        self._texts, self._facts, self._rows = self._texts[order], self._facts[order], self._rows[order]
        self._by_text = np.argsort(self._texts)
        self._claimed = np.zeros(len(ids), dtype=bool)
        self._kept = np.zeros(len(ids), dtype=bool)
        self._new_ids = np.empty(num_new, dtype="S16")
        self._num_seen = 0

    @property
    def num_bytes(self) -> int:
        """Memory that the state takes."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def origins(self, table: pa.Table) -> np.ndarray:
        """Return for each passage of the next table where its vector comes from, (M,) int64."""
        ids, texts, facts = (digests(table, kind) for kind in WIDTHS)
        self._new_ids[self._num_seen : self._num_seen + len(ids)] = ids
        self._num_seen += len(ids)
        place, found = _find(self._ids, ids)
        same = found.copy()
        same[found] = (self._texts[place[found]] == texts[found]) & (self._facts[place[found]] == facts[found])
        self._claimed[place[found]] = True
        self._kept[place[same]] = True
        twin, has_twin = _find(self._texts, texts, self._by_text)
        origins = np.full(len(ids), EMBED, dtype=np.int64)
        origins[has_twin] = self._rows[twin[has_twin]]
        origins[same] = UNCHANGED
        return origins

    def delta(self, reused_rows: np.ndarray, num_embed: int) -> Delta:
        """Return the counts and dead rows once every table has been seen."""
        claimed, unchanged = int(self._claimed.sum()), int(self._kept.sum())
        return Delta(
            added=self._num_seen - claimed,
            changed=claimed - unchanged,
            deleted=len(self._ids) - claimed,
            unchanged=unchanged,
            num_embed=num_embed,
            reused_rows=reused_rows,
            dead_rows=np.sort(self._rows[~self._kept]),
        )

    def duplicate_id(self) -> bytes | None:
        """Return the digest of an id that two passages of the corpus share, None where there is none."""
        self._new_ids.sort()
        twice = np.flatnonzero(self._new_ids[1:] == self._new_ids[:-1])
        return bytes(self._new_ids[twice[0]]) if len(twice) else None


def _digests_of(index: Path, snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the digests of all live rows, (N,) each, and their global rows, (N,) int64."""
    columns = [np.empty(snapshot.num_live, dtype=f"S{width}") for width in WIDTHS.values()]
    rows = np.empty(snapshot.num_live, dtype=np.int64)
    first = 0
    for block in live_batches(index, snapshot):
        here = slice(first, first + len(block.rows_B))
        passages = block.passages
        for column, kind in zip(columns, WIDTHS, strict=True):
            column[here] = digests(passages, kind)
        rows[here] = block.rows_B + block.offset
        first += len(block.rows_B)
    ids, texts, facts = columns
    return ids, texts, facts, rows


def _find(haystack: np.ndarray, needles: np.ndarray, order: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Look digests up in sorted ones (sorted by ``order``): the place of each, and whether it is there."""
    if not len(haystack):
        return np.zeros(len(needles), dtype=np.int64), np.zeros(len(needles), dtype=bool)
    place = np.minimum(np.searchsorted(haystack, needles, sorter=order), len(haystack) - 1)
    place = place if order is None else order[place]
    return place, haystack[place] == needles


def digests(table: pa.Table, kind: str) -> np.ndarray:
    """Digest what a passage is called (id), says to the letter (text) or is known by (facts); (M,) bytes.

    Fixed-width bytes compare as the digests do: numpy pads what ends in zeros with zeros.
    """
    if kind == "id":
        return _packed([id_key(identity) for identity in table["id"].to_pylist()], WIDTHS[kind])
    if kind == "text":
        pairs = zip(table["title"].to_pylist(), table["text"].to_pylist(), strict=True)
        return _packed([_digest(f"{len(title)}\0{title}{text}", WIDTHS[kind]) for title, text in pairs], WIDTHS[kind])
    known = zip(table["document_id"].to_pylist(), table["metadata"].to_pylist(), strict=True)
    content = [json.dumps([document, sorted(pairs_of(from_pairs(metadata)))]) for document, metadata in known]
    return _packed([_digest(text, WIDTHS[kind]) for text in content], WIDTHS[kind])


def _digest(text: str, width: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=width).digest()


def _packed(values: list[bytes], width: int) -> np.ndarray:
    return np.frombuffer(b"".join(values), dtype=f"S{width}")


def write_delta(index: Path, snapshot: Snapshot, corpus: Corpus, folder: Path) -> Delta:
    """Compare a corpus with a snapshot, and write what is new or changed below ``folder``, a table in memory at a time.

    The delta corpus has the same bytes and fingerprint whenever the same passages are in it: embedding goes on from there.

    Raises:
        CorruptArtifactError: two passages of the corpus have one id.
    """
    for part in (DELTA_CORPUS, REUSED_FOLDER):
        shutil.rmtree(folder / part, ignore_errors=True)
    comparison = Comparison(index, snapshot, corpus.num_passages)
    content = hashlib.blake2b(digest_size=8)
    documents = [""]
    num_documents = 0
    reused: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    with (
        ShardWriter(folder / DELTA_CORPUS / PASSAGE_FOLDER, SHARD_ROWS) as to_embed,
        ShardWriter(folder / REUSED_FOLDER, SHARD_ROWS) as to_reuse,
    ):
        for table in corpus.iter_tables():
            origins = comparison.origins(table)
            new = table.filter(pa.array(origins == EMBED))
            to_embed.write(new)
            content.update(digests(new, "id").tobytes() + digests(new, "text").tobytes())
            documents = [documents[-1], *new["document_id"].to_pylist()]
            num_documents += sum(one != other for one, other in pairwise(documents))
            to_reuse.write(table.filter(pa.array(origins >= 0)))
            reused.append(origins[origins >= 0])
    if key := comparison.duplicate_id():
        raise CorruptArtifactError(
            f"{corpus.folder}: passage id {_name_of(corpus, key)!r} is there twice; make the corpus again with `ragray ingest`"
        )
    facts = {"num_passages": to_embed.num_rows, "num_documents": num_documents, "schema_version": SCHEMA_VERSION}
    publish(folder / DELTA_CORPUS, kind="corpus", fingerprint=content.hexdigest(), facts=facts, files=to_embed.paths)
    return comparison.delta(np.concatenate(reused), to_embed.num_rows)


def _name_of(corpus: Corpus, key: bytes) -> str:
    ids = (str(identity) for table in corpus.iter_tables(["id"]) for identity in table["id"].to_pylist())
    return next(identity for identity in ids if id_key(identity).rstrip(b"\0") == key)


def reused_blocks(reader: IndexReader, folder: Path, rows: np.ndarray) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yield the passages that `write_delta` found with an unchanged text, with the vectors of their rows, (rows, D) float16."""
    first = 0
    for path in sorted((folder / REUSED_FOLDER).glob("part-*.parquet")):
        with pq.ParquetFile(path) as file:
            for table in (file.read_row_group(group) for group in range(file.metadata.num_row_groups)):
                yield table, _vectors_of(reader, rows[first : first + len(table)])
                first += len(table)


def _vectors_of(reader: IndexReader, rows: np.ndarray) -> np.ndarray:
    vectors = np.empty((len(rows), reader.snapshot.dim), dtype=np.float16)
    for opened in reader.segments:
        mine = (rows >= opened.offset) & (rows < opened.offset + len(opened.live_N))
        vectors[mine] = opened.segment.vectors_ND[rows[mine] - opened.offset]
    return vectors
