"""Finding near duplicates. In: texts. Out: MinHash signatures, and which earlier passage one nearly repeats, in bounded memory.

Broder 1997, "On the resemblance and containment of documents"; banding as in Leskovec et al., "Mining of Massive Datasets", chapter 3.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from pathlib import Path
from types import TracebackType

import numpy as np

from ragray.corpus.dedup import scratch_tables
from ragray.errors import MissingPackageError
from ragray.text.shingles import shingles

NUM_PERMUTATIONS = 128
MAX_CANDIDATES = 64
"""Passages compared with a new one, at most: of those that share bands with it, those that share the most."""
MAX_OF_A_BAND = 64
"""Passages of one band that count, at most, earliest first: a band that more passages share says little."""
MIN_PROBABILITY = 0.95
"""Probability with which a pair that is just similar enough shares a band."""


class MinHasher:
    """Makes MinHash signatures of the shingles of texts: 3-grams of words, or of characters where a script has no spaces.

    Raises:
        MissingPackageError: datasketch is not installed.
    """

    def __init__(self) -> None:
        try:
            from datasketch import MinHash
        except ImportError as err:
            raise MissingPackageError("ingest.near_duplicates needs datasketch; run: pip install datasketch") from err
        self._empty = MinHash(NUM_PERMUTATIONS)

    def signature(self, text: str) -> bytes:
        """Return the signature of a text: 128 numbers of four bytes; case and white space make no difference."""
        signature = self._empty.copy()
        signature.update_batch([shingle.encode() for shingle in shingles(text)])
        return bytes(signature.hashvalues.astype("<u4").tobytes())


class NearDuplicates:
    """Remembers signatures on disk, some 900 bytes each; finds an earlier one whose estimated Jaccard similarity is at least ``threshold``.

    Signatures are compared where they share a band of rows, and the key of their ``facts`` (see `facts_key`); how many rows
    make a band follows from the threshold. Use as a context manager.
    """

    def __init__(self, path: Path, threshold: float) -> None:
        self._rows = _rows_of_a_band(threshold)
        self._num_bands = NUM_PERMUTATIONS // self._rows
        self._threshold = threshold
        self._num_signatures = 0
        self._open = contextlib.ExitStack()
        schema = (
            "CREATE TABLE bands (band BLOB, number INTEGER, PRIMARY KEY (band, number)) WITHOUT ROWID; "
            "CREATE TABLE signatures (number INTEGER PRIMARY KEY, id TEXT, signature BLOB)"
        )
        self._tables = self._open.enter_context(scratch_tables(path, schema))

    def __enter__(self) -> NearDuplicates:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, err, trace)

    def find(self, signature: bytes, facts: bytes = b"") -> str | None:
        """Return the id of the first passage that a signature nearly repeats, None where there is none."""
        numbers = self._candidates(signature, facts)
        query = f"SELECT id, signature FROM signatures WHERE number IN ({','.join('?' * len(numbers))}) ORDER BY number"
        rows = self._tables.execute(query, numbers).fetchall()
        others = np.frombuffer(b"".join(other for _, other in rows), "<u4").reshape(-1, NUM_PERMUTATIONS)
        similar = np.flatnonzero(np.mean(others == np.frombuffer(signature, "<u4"), axis=1) >= self._threshold)
        return str(rows[similar[0]][0]) if len(similar) else None

    def add(self, signature: bytes, identity: str, facts: bytes = b"") -> None:
        """Remember the signature of a passage."""
        number = self._num_signatures
        self._num_signatures += 1
        self._tables.execute("INSERT INTO signatures VALUES (?, ?, ?)", (number, identity, signature))
        bands = ((band, number) for band in self._bands(signature, facts))
        self._tables.executemany("INSERT INTO bands VALUES (?, ?)", bands)

    def _candidates(self, signature: bytes, facts: bytes) -> list[int]:
        """Return the numbers of the passages that share the most bands; what many passages share does not crowd them out."""
        query = f"SELECT number FROM bands WHERE band = ? LIMIT {MAX_OF_A_BAND}"
        shared = Counter(
            number for band in self._bands(signature, facts) for (number,) in self._tables.execute(query, (band,))
        )
        return [number for number, _ in shared.most_common(MAX_CANDIDATES)]

    def _bands(self, signature: bytes, facts: bytes) -> list[bytes]:
        """Hash each band of rows, with its number and the facts, to eight bytes."""
        width = 4 * self._rows
        return [
            hashlib.blake2b(
                signature[n * width : (n + 1) * width], digest_size=8, salt=n.to_bytes(2), key=facts
            ).digest()
            for n in range(self._num_bands)
        ]


def _rows_of_a_band(threshold: float) -> int:
    """Return the most rows with which a pair as similar as the threshold is still compared: P = 1 - (1 - s^rows)^bands."""

    def probability(rows: int) -> float:
        return 1 - float(1 - threshold**rows) ** (NUM_PERMUTATIONS // rows)

    return max((rows for rows in range(1, NUM_PERMUTATIONS + 1) if probability(rows) >= MIN_PROBABILITY), default=1)
