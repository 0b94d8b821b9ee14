"""BM25 over segments. In: the texts of a segment, queries. Out: posting lists on disk, scores that are right over all segments.

A segment keeps plain counts, not scores: the number of passages, the passages that hold a term and the mean length are summed over
all live rows of the snapshot when a query comes, so that the scores equal those of one index over everything.

N rows of a segment, T distinct terms, P postings, K results.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from ragray.artifact import ARRAY_ERRORS
from ragray.errors import CorruptArtifactError, InputError, first_line
from ragray.index.snapshot import SEGMENTS, Snapshot
from ragray.index.tombstones import live_mask

LEXICAL = "lexical"

K1 = 1.5
B = 0.75
"""Saturation of the term count, and weight of the passage length: the values that `bm25s` takes too."""

BLOCK_ROWS = 8192
"""Passages that are tokenised and counted together."""

DTYPES: dict[str, type[np.generic]] = {
    "terms": np.uint64,
    "starts": np.int64,
    "rows": np.int32,
    "counts": np.uint16,
    "lengths": np.int32,
}
"""The files of a lexical part, see `Postings`."""


@dataclass(frozen=True, slots=True)
class Postings:
    """The posting lists of one segment, memory-mapped.

    ``terms_T`` are hashes of the terms, ascending; the passages with term t are ``rows_P[starts[t]:starts[t + 1]]``, ascending,
    and hold it ``counts_P`` times (at most 65,535 are counted). ``lengths_N`` are the tokens of every passage.
    """

    terms_T: np.ndarray
    starts: np.ndarray
    rows_P: np.ndarray
    counts_P: np.ndarray
    lengths_N: np.ndarray

    @classmethod
    def open(cls, folder: Path, num_rows: int) -> Postings:
        """Open the lexical part of a segment.

        Raises:
            CorruptArtifactError: a file is missing or damaged, or the files do not fit each other or the segment.
        """
        part = cls(*(_load(folder / f"{name}.npy", dtype) for name, dtype in DTYPES.items()))
        postings = len(part.rows_P)
        faults = {
            f"lengths.npy has {len(part.lengths_N)} rows, the snapshot says {num_rows}": len(part.lengths_N)
            != num_rows,
            "terms.npy is not in order": bool((part.terms_T[1:] <= part.terms_T[:-1]).any()),
            f"starts.npy does not fit {len(part.terms_T)} terms": len(part.starts) != len(part.terms_T) + 1,
            f"counts.npy has {len(part.counts_P)} entries, rows.npy {postings}": len(part.counts_P) != postings,
        }
        if not any(faults.values()):
            bounds = (int(part.starts[0]), int(part.starts[-1]))
            ascending = bool((part.starts[1:] >= part.starts[:-1]).all())
            faults[f"starts.npy does not divide {postings} postings"] = bounds != (0, postings) or not ascending
        for fault, found in faults.items():
            if found:
                raise CorruptArtifactError(f"{folder}: {fault}; build the index again")
        return part

    def of(self, term: np.uint64) -> slice:
        """Return where the postings of a term lie; empty if no passage holds it."""
        place = int(np.searchsorted(self.terms_T, term))
        if place == len(self.terms_T) or self.terms_T[place] != term:
            return slice(0, 0)
        return slice(int(self.starts[place]), int(self.starts[place + 1]))


def _load(path: Path, dtype: type[np.generic]) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ARRAY_ERRORS as err:
        reason = first_line(err)
        raise CorruptArtifactError(f"{path}: cannot be read ({reason}); build the index again") from err
    if found.ndim != 1 or found.dtype != dtype:
        raise CorruptArtifactError(
            f"{path}: holds {found.dtype} of shape {found.shape}, expected a list of {np.dtype(dtype)}; build the index again"
        )
    return found


def analyze(texts: Sequence[str], analyzer: str) -> tuple[list[list[int]], np.ndarray]:
    """Cut texts into terms: for each text the numbers of its terms, in text order, and the hash of every number, uint64.

    Words of two letters or digits at least, in lower case; `english` leaves stop words out and stems, `plain` does neither.
    """
    import bm25s

    stop_words, stemmer = None, None
    if analyzer == "english":
        import Stemmer

        stop_words, stemmer = "en", Stemmer.Stemmer("english")
    found = bm25s.tokenize(list(texts), stopwords=stop_words, stemmer=stemmer, show_progress=False)
    hashes = np.empty(len(found.vocab), dtype=np.uint64)
    for term, number in found.vocab.items():
        digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        hashes[number] = int.from_bytes(digest, "little")
    return found.ids, hashes


def require_lexical(snapshot: Snapshot) -> None:
    """Raise `InputError` unless the snapshot has a lexical part."""
    if snapshot.lexical == "none":
        raise InputError(
            f"index snapshot {snapshot.name} was built without a lexical part, so only retrieve.mode=dense can search it; "
            "for the other modes run ragray index build again with index.lexical=english"
        )


@dataclass(frozen=True, slots=True)
class _Block:
    """The postings of some neighbouring rows: ``sizes_T`` of each term, in the order of ``terms_T``."""

    terms_T: np.ndarray
    sizes_T: np.ndarray
    rows_P: np.ndarray
    counts_P: np.ndarray


class LexicalWriter:
    """Collects the terms of a segment's passages, in row order, and writes them as posting lists; needs some 12 bytes a posting."""

    def __init__(self, analyzer: str) -> None:
        self._analyzer = analyzer
        self._pending: list[str] = []
        self._blocks: list[_Block] = []
        self._lengths: list[np.ndarray] = []

    def add(self, texts: Sequence[str]) -> None:
        """Append passages (title and text joined as the encoder sees them)."""
        self._pending.extend(texts)
        if len(self._pending) >= BLOCK_ROWS:
            self._count()

    def write(self, folder: Path) -> list[Path]:
        """Write the files of the lexical part; return them."""
        self._count()
        folder.mkdir(parents=True, exist_ok=True)
        terms_T = np.unique(np.concatenate([np.empty(0, np.uint64), *(block.terms_T for block in self._blocks)]))
        sizes_T = np.zeros(len(terms_T), dtype=np.int64)
        for block in self._blocks:
            sizes_T[np.searchsorted(terms_T, block.terms_T)] += block.sizes_T
        starts = np.concatenate([[0], np.cumsum(sizes_T)])
        rows_P, counts_P = self._postings(terms_T, starts)
        lengths_N = np.concatenate([np.empty(0, np.int32), *self._lengths])
        arrays = dict(zip(DTYPES, (terms_T, starts, rows_P, counts_P, lengths_N), strict=True))
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array.astype(DTYPES[name], copy=False), allow_pickle=False)
        return [folder / f"{name}.npy" for name in arrays]

    def _count(self) -> None:
        """Turn the pending texts into a block."""
        if not self._pending:
            return
        ids, hashes = analyze(self._pending, self._analyzer)
        first, num_rows = sum(len(lengths) for lengths in self._lengths), len(ids)
        lengths_N = np.fromiter(map(len, ids), np.int32, num_rows)
        tokens = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths_N.sum()))
        terms_T, place = np.unique(hashes, return_inverse=True)
        keys = place[tokens] * num_rows + np.repeat(np.arange(num_rows), lengths_N)
        keys, counts_P = np.unique(keys, return_counts=True)
        term_P, row_P = np.divmod(keys, num_rows)
        sizes_T = np.bincount(term_P, minlength=len(terms_T)).astype(np.int32)
        counts_P = np.minimum(counts_P, np.iinfo(np.uint16).max).astype(np.uint16)
        self._blocks.append(_Block(terms_T, sizes_T, (row_P + first).astype(np.int32), counts_P))
        self._lengths.append(lengths_N)
        self._pending = []

    def _postings(self, terms_T: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lay the blocks' postings behind one another, term by term: a counting sort, as every block is in order already."""
        rows_P, counts_P = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.uint16)
        ends = starts[:-1].copy()
        for block in self._blocks:
            places = np.searchsorted(terms_T, block.terms_T)
            begins = np.cumsum(block.sizes_T) - block.sizes_T
            to = np.repeat(ends[places] - begins, block.sizes_T) + np.arange(len(block.rows_P))
            rows_P[to], counts_P[to] = block.rows_P, block.counts_P
            ends[places] += block.sizes_T
        return rows_P, counts_P


@dataclass(frozen=True, slots=True)
class _Part:
    """The lexical part of one segment of a snapshot: its first global row, and which of its rows are live (None: all)."""

    offset: int
    postings: Postings
    live_N: np.ndarray | None

    def document_frequency(self, term: np.uint64) -> int:
        """Return how many live rows hold a term."""
        where = self.postings.of(term)
        if self.live_N is None:
            return int(where.stop - where.start)
        return int(np.count_nonzero(self.live_N[self.postings.rows_P[where]]))


class LexicalIndex:
    """The lexical parts of all segments of a snapshot, memory-mapped."""

    def __init__(self, parts: Sequence[_Part], analyzer: str) -> None:
        self._parts = parts
        self._analyzer = analyzer
        lengths = [
            part.postings.lengths_N if part.live_N is None else part.postings.lengths_N[part.live_N] for part in parts
        ]
        self._num_live = sum(len(lengths_N) for lengths_N in lengths)
        self._mean_length = sum(int(lengths_N.sum(dtype=np.int64)) for lengths_N in lengths) / max(self._num_live, 1)

    @classmethod
    def open(cls, index: Path, snapshot: Snapshot) -> LexicalIndex:
        """Open the parts.

        Raises:
            InputError: the snapshot has none.
            CorruptArtifactError: a part does not fit its segment.
        """
        require_lexical(snapshot)
        parts, offset = [], 0
        for ref in snapshot.segments:
            postings = Postings.open(index / SEGMENTS / ref.name / LEXICAL, ref.num_rows)
            parts.append(_Part(offset, postings, live_mask(index, ref) if ref.num_deleted else None))
            offset += ref.num_rows
        return cls(parts, snapshot.lexical)

    def search(
        self, queries: Sequence[str], k: int, allowed: Mapping[int, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return global rows (N, K) int64 and scores (N, K) float32, best first, ties to the lower row, -1 and -inf where none.

        ``allowed`` names the segments to search, by their number, and which of their rows may be found. A score is Lucene's
        BM25 (Kamphuis et al. 2020): the sum over the terms of the query, repeated ones repeatedly, of
        ln(1 + (N - df + 0.5) / (df + 0.5)) * tf / (tf + K1 * (1 - B + B * length / mean length)).
        """
        rows_NK = np.full((len(queries), k), -1, dtype=np.int64)
        scores_NK = np.full((len(queries), k), -np.inf, dtype=np.float32)
        ids, hashes = analyze(queries, self._analyzer)
        for number, terms in enumerate(ids):
            weights = self._weights(Counter(hashes[term] for term in terms))
            found = [self._best(self._parts[part], weights, k, allowed_N) for part, allowed_N in allowed.items()]
            rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in found)])
            scores = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in found)])
            best = np.lexsort((rows, -scores))[:k]
            rows_NK[number, : len(best)], scores_NK[number, : len(best)] = rows[best], scores[best]
        return rows_NK, scores_NK

    def _weights(self, terms: Counter[np.uint64]) -> dict[np.uint64, float]:
        """Return the inverse document frequency of the terms of a query, times how often it names them; those of no row are left out."""
        weights = {}
        for term, times in terms.items():
            df = sum(part.document_frequency(term) for part in self._parts)
            if df:
                weights[term] = times * float(np.log(1 + (self._num_live - df + 0.5) / (df + 0.5)))
        return weights

    def _best(
        self, part: _Part, weights: Mapping[np.uint64, float], k: int, allowed_N: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the global rows and scores of the k best of a segment (more where the k-th ties), in no order."""
        postings = part.postings
        scores_N = np.zeros(len(allowed_N))
        for term, weight in weights.items():
            where = postings.of(term)
            rows, counts = postings.rows_P[where], postings.counts_P[where].astype(np.float64)
            norm = K1 * (1 - B + B * postings.lengths_N[rows] / self._mean_length)
            scores_N[rows] += weight * counts / (counts + norm)
        rows = np.flatnonzero((scores_N > 0) & allowed_N)
        scores = scores_N[rows].astype(np.float32)
        if len(rows) > k:
            keep = scores >= np.partition(scores, -k)[-k]
            rows, scores = rows[keep], scores[keep]
        return rows + part.offset, scores
