"""Canary queries. In: a snapshot that was opened to be served. Out: nothing, or the error that its stored rows do not find themselves.

C canaries, K results, D dim.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ragray.errors import CorruptArtifactError
from ragray.index.search.reader import IndexReader

CANARIES = 8
"""Rows that are searched for, spread over the segments; of each segment one at least."""

DEPTH = 10
MOST_MISSED = 0.5
"""Share of canaries that may be missed: an approximate index misses some, one that belongs to other vectors nearly all."""

TOLERANCE = 1e-3


def require_findable(reader: IndexReader) -> None:
    """Search for stored rows by their own vectors, and read the passages found.

    A canary is found where it is among the first `DEPTH`, or where all of these score at least as much as it does itself.

    Raises:
        CorruptArtifactError: more than half of the canaries are missed, or a file cannot be read.
    """
    canaries = list(_canaries(reader))
    if not canaries:
        return
    rows_C = np.array([row for row, _ in canaries])
    vectors_CD = np.stack([vector_D for _, vector_D in canaries]).astype(np.float32)
    rows_CK, scores_CK = reader.search_rows(vectors_CD, DEPTH)
    own_C = np.square(vectors_CD).sum(axis=1)
    found_C = (rows_CK == rows_C[:, None]).any(axis=1) | (scores_CK >= own_C[:, None] - TOLERANCE).all(axis=1)
    missed = int(np.count_nonzero(~found_C))
    if missed > MOST_MISSED * len(canaries):
        raise CorruptArtifactError(
            f"{reader.index}: snapshot {reader.snapshot.name}: {missed} of {len(canaries)} stored passages do not find themselves; "
            f"run: ragray index verify {reader.index}"
        )
    reader.result(rows_CK, scores_CK)


def _canaries(reader: IndexReader) -> Iterator[tuple[int, np.ndarray]]:
    """Yield live rows of every open segment, evenly spread, each as its global row and its vector (D,)."""
    of_each = -(-CANARIES // max(len(reader.segments), 1))
    for opened in reader.segments:
        live = np.flatnonzero(opened.live_N)
        for place in np.unique(np.linspace(0, len(live) - 1, of_each).astype(int)) if len(live) else ():
            row = int(live[place])
            yield opened.offset + row, np.asarray(opened.segment.vectors_ND[row])
