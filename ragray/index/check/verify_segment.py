"""Deep checks of one segment. In: its folder and what the snapshot says of it. Out: every fault found, file by file.

N rows of the segment, S sampled rows, D dim, P postings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import faiss
import numpy as np
import pyarrow as pa

from ragray.artifact.files import ARRAY_ERRORS
from ragray.artifact.manifest import read_manifest, verify_file
from ragray.corpus.dedup import content_hash
from ragray.embed.encoder import Encoder
from ragray.embed.passage_text import encoder_texts
from ragray.errors import ArtifactError, CorruptArtifactError, first_line
from ragray.index.check.ids import IdKeys
from ragray.index.check.verify_faiss import faiss_faults
from ragray.index.store.columns import COLUMNS_FILE, MetadataColumns
from ragray.index.store.postings import LEXICAL, Postings
from ragray.index.store.segment import FAISS_FILE, PASSAGES_FILE, SEGMENT_SCHEMA, VECTORS_FILE
from ragray.index.store.snapshot import SEGMENTS, SegmentRef, Snapshot
from ragray.text.analyzer import analyze

T = TypeVar("T")

FULL_ROWS = 20_000
"""Segments up to this size are compared row by row; of larger ones as many rows, drawn evenly."""

BATCH_ROWS = 8192
BATCH_POSTINGS = 1 << 24

LENGTH_TOLERANCE = 1e-2
"""How far a normalised vector may be from length one: half precision, in the file or already in the encoder."""

MIN_COSINE = 0.999
"""Between a stored vector and the one that the encoder makes of the passage now."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, and the file or folder where."""

    what: str
    where: Path


@dataclass(frozen=True, slots=True)
class SegmentFiles:
    """The files of a segment, opened; None where one is missing, damaged, or of another size than the snapshot says."""

    folder: Path
    num_rows: int
    index: faiss.Index | None
    vectors_ND: np.ndarray | None
    passages: pa.Table | None
    postings: Postings | None
    columns: MetadataColumns | None

    @property
    def sample(self) -> np.ndarray:
        """The rows that are compared one by one, ascending."""
        if self.num_rows <= FULL_ROWS:
            return np.arange(self.num_rows)
        return np.sort(np.random.default_rng(0).choice(self.num_rows, FULL_ROWS, replace=False))

    def texts(self, rows: np.ndarray) -> list[str]:
        """Return the passages of some rows as the encoder sees them."""
        assert self.passages is not None
        table = self.passages.select(["title", "text"])
        neighbours = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
        slices = [table.slice(int(rows[0]), len(rows))] if neighbours else [table.slice(int(row), 1) for row in rows]
        return [text for piece in slices for text in encoder_texts(piece)]


def open_segment_files(index: Path, ref: SegmentRef, snapshot: Snapshot) -> tuple[SegmentFiles, list[Fault]]:
    """Compare all files of a segment with its manifest, whole; open, each on its own, those that are as they should be."""
    folder = index / SEGMENTS / ref.name
    try:
        manifest = read_manifest(folder, "segment")
    except ArtifactError as err:
        return SegmentFiles(folder, ref.num_rows, None, None, None, None, None), [Fault(str(err), folder)]
    faults: list[Fault] = []
    damaged: set[str] = set()
    for entry in manifest.files:
        try:
            verify_file(folder, entry, "segment")
        except CorruptArtifactError as err:
            damaged.add(entry.path)
            faults.append(_fault(err, folder / entry.path))

    def opened(opener: Callable[[Path, int, int], T], name: str) -> T | None:
        if name in damaged or any(path.startswith(f"{name}/") for path in damaged):
            return None
        try:
            return opener(folder / name, ref.num_rows, snapshot.dim)
        except (RuntimeError, CorruptArtifactError, *ARRAY_ERRORS) as err:
            faults.append(_fault(err, folder / name))
            return None

    files = SegmentFiles(
        folder,
        ref.num_rows,
        opened(_open_faiss, FAISS_FILE),
        opened(_open_vectors, VECTORS_FILE),
        opened(_open_passages, PASSAGES_FILE),
        opened(_open_postings, LEXICAL) if snapshot.lexical != "none" else None,
        opened(_open_columns, COLUMNS_FILE) if any(entry.path == COLUMNS_FILE for entry in manifest.files) else None,
    )
    return files, faults


def _fault(err: Exception, where: Path) -> Fault:
    """Turn an error into a fault: its first line, without the place and the advice of our own messages."""
    what = first_line(err)
    return Fault(
        what.rpartition("; ")[0].removeprefix(f"{where}: ") if isinstance(err, CorruptArtifactError) else what, where
    )


def _open_faiss(path: Path, num_rows: int, dim: int) -> faiss.Index:
    index = faiss.read_index(str(path))  # into memory: of a truncated file that is mapped, FAISS reads beyond the end
    if (index.ntotal, index.d) != (num_rows, dim):
        raise ValueError(
            f"the FAISS index holds {index.ntotal} rows of {index.d} dimensions, the snapshot says {num_rows} of {dim}"
        )
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError("the FAISS index measures L2, not inner product")
    return index


def _open_vectors(path: Path, num_rows: int, dim: int) -> np.ndarray:
    vectors_ND: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if vectors_ND.shape != (num_rows, dim) or vectors_ND.dtype != np.float16:
        raise ValueError(
            f"{vectors_ND.dtype} vectors of shape {vectors_ND.shape}, the snapshot says float16 of ({num_rows}, {dim})"
        )
    return vectors_ND


def _open_passages(path: Path, num_rows: int, dim: int) -> pa.Table:
    passages = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    if passages.schema != SEGMENT_SCHEMA:
        raise ValueError(f"columns {passages.schema.names} of other names or types than a segment's")
    passages.validate(full=True)
    if len(passages) != num_rows:
        raise ValueError(f"{len(passages)} passages, the snapshot says {num_rows}")
    return passages


def _open_columns(path: Path, num_rows: int, dim: int) -> MetadataColumns:
    return MetadataColumns.open(path, num_rows)


def _open_postings(folder: Path, num_rows: int, dim: int) -> Postings:
    return Postings.open(folder, num_rows)


def passage_faults(files: SegmentFiles, live_N: np.ndarray, offset: int, ids: IdKeys) -> Iterator[Fault]:
    """Compare every passage's content hash with its text; remember the ids of live rows by their global row."""
    if files.passages is None:
        return
    wrong, example = 0, ""
    row = 0
    for batch in files.passages.to_batches(max_chunksize=BATCH_ROWS):
        names, titles, texts, hashes = (batch[name].to_pylist() for name in ("id", "title", "text", "content_hash"))
        for number, expected in enumerate(hashes):
            if content_hash(titles[number], texts[number]) != expected:
                wrong, example = wrong + 1, example or f"row {row + number} ('{names[number]}')"
        live = np.flatnonzero(live_N[row : row + len(names)])
        ids.add([names[number] for number in live], live + row + offset)
        row += len(names)
    if wrong:
        what = f"{wrong} passages have a text that is not the one of their content_hash, the first is {example}"
        yield Fault(what, files.folder / PASSAGES_FILE)


def vector_faults(files: SegmentFiles, *, normalized: bool, zero_allowed: bool) -> Iterator[Fault]:
    """Look for vectors that are no numbers, or that are not of length one where the encoder makes them so."""
    if files.vectors_ND is None:
        return
    counts, firsts = [0, 0], [-1, -1]
    for start in range(0, files.num_rows, BATCH_ROWS):
        lengths = np.linalg.norm(files.vectors_ND[start : start + BATCH_ROWS].astype(np.float32), axis=1)
        finite = np.isfinite(lengths)
        other = finite & (np.abs(lengths - 1) > LENGTH_TOLERANCE) & ~(zero_allowed & (lengths == 0)) & normalized
        for kind, bad in enumerate((~finite, other)):
            counts[kind] += int(bad.sum())
            firsts[kind] = start + int(bad.argmax()) if firsts[kind] < 0 and bad.any() else firsts[kind]
    kinds = ("are not finite", "are not of length one, as the encoder makes them")
    for what, count, first in zip(kinds, counts, firsts, strict=True):
        if count:
            yield Fault(f"{count} vectors {what}, the first is row {first}", files.folder / VECTORS_FILE)


def faiss_file_faults(files: SegmentFiles) -> Iterator[Fault]:
    """Compare what FAISS holds with the fp16 vectors."""
    if files.index is None or files.vectors_ND is None or not files.num_rows:
        return
    where = files.folder / FAISS_FILE
    try:
        for what in faiss_faults(files.index, files.vectors_ND, files.sample):
            yield Fault(what, where)
    except RuntimeError as err:
        yield Fault(f"FAISS cannot read its own vectors ({first_line(err)})", where)


def lexical_faults(files: SegmentFiles, analyzer: str) -> Iterator[Fault]:
    """Check that the postings fit each other, and that those of sampled rows are what their texts give."""
    postings = files.postings
    if postings is None:
        return
    faults = [*_posting_faults(postings, files.num_rows)]
    yield from (Fault(what, files.folder / LEXICAL) for what in faults)
    if faults or files.passages is None:
        return
    wrong: list[int] = []
    rows_S = files.sample
    for start in range(0, len(rows_S), BATCH_ROWS):
        rows = rows_S[start : start + BATCH_ROWS]
        wrong += rows[_differ(postings, rows, files.texts(rows), analyzer)].tolist()
    if wrong:
        yield Fault(
            f"the postings of {len(wrong)} of {len(rows_S)} passages are not those of their text, the first is row {wrong[0]}",
            files.folder / LEXICAL,
        )


def _posting_faults(postings: Postings, num_rows: int) -> Iterator[str]:
    for start in range(0, len(postings.rows_P), BATCH_POSTINGS):
        rows = postings.rows_P[start : start + BATCH_POSTINGS]
        if rows.min() < 0 or rows.max() >= num_rows:
            yield f"rows.npy names a row that the segment does not have ({rows.min()} to {rows.max()} of {num_rows})"
            return
        if not postings.counts_P[start : start + BATCH_POSTINGS].all():
            yield "counts.npy holds a zero"
            return
        fallen = np.flatnonzero(rows[1:] <= rows[:-1]) + start + 1
        if not np.isin(fallen, postings.starts).all():
            yield "rows.npy is not ascending within a term"
            return
    if len(postings.lengths_N) and postings.lengths_N.min() < 0:
        yield "lengths.npy holds a negative length"


def _differ(postings: Postings, rows: np.ndarray, texts: list[str], analyzer: str) -> np.ndarray:
    """Return for which rows, ascending, the texts give other terms, counts or lengths than the postings hold.

    Compared is the sum of the terms' hashes over all tokens of a row, modulo 2**64: it needs no order.
    """
    ids, hashes = analyze(texts, analyzer)
    lengths_S = np.fromiter(map(len, ids), np.int64, len(rows))
    tokens = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths_S.sum()))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes[tokens])])
    ends = np.cumsum(lengths_S)
    kept_S, capped_S = _kept_sums(postings, rows)
    differ: np.ndarray = (kept_S != sums[ends] - sums[ends - lengths_S]) & ~capped_S
    differ |= postings.lengths_N[rows] != lengths_S
    return differ


def _kept_sums(postings: Postings, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of hash times count over the postings of each row, and whether one of its counts is at its upper limit."""
    sums, capped = np.zeros(len(rows), np.uint64), np.zeros(len(rows), dtype=bool)
    for start in range(0, len(postings.rows_P), BATCH_POSTINGS):
        rows_P = postings.rows_P[start : start + BATCH_POSTINGS]
        place = np.minimum(np.searchsorted(rows, rows_P), len(rows) - 1)
        mine = np.flatnonzero(rows[place] == rows_P)
        counts = postings.counts_P[start + mine]
        term = np.searchsorted(postings.starts, mine + start, side="right") - 1
        np.add.at(sums, place[mine], postings.terms_T[term] * counts.astype(np.uint64))
        capped[place[mine[counts == np.iinfo(np.uint16).max]]] = True
    return sums, capped


def encoder_faults(files: SegmentFiles, encoder: Encoder, count: int, live_N: np.ndarray) -> Iterator[Fault]:
    """Encode ``count`` live passages again and compare them with their stored vectors."""
    live = np.flatnonzero(live_N)
    if files.passages is None or files.vectors_ND is None or not len(live) or not count:
        return
    rows = np.sort(np.random.default_rng(0).choice(live, min(count, len(live)), replace=False))
    made_SD, kept_SD = encoder.encode(files.texts(rows)), files.vectors_ND[rows].astype(np.float32)
    lengths = np.linalg.norm(made_SD, axis=1) * np.linalg.norm(kept_SD, axis=1)
    cosines = np.where(
        lengths > 0, (made_SD * kept_SD).sum(axis=1) / np.maximum(lengths, 1e-12), made_SD.any(1) == kept_SD.any(1)
    )
    wrong = rows[~(cosines >= MIN_COSINE)]
    if len(wrong):
        yield Fault(
            f"{len(wrong)} of {len(rows)} passages get another vector from the encoder now, the first is row {wrong[0]}",
            files.folder / VECTORS_FILE,
        )
