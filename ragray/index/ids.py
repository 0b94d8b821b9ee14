"""Ids seen in bulk. In: ids with the rows they stand in. Out: which stand in two rows; 24 bytes of memory an id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragray.corpus.dedup import id_key


class IdKeys:
    """Collects ids as 128-bit hashes, and finds those that came twice by sorting them."""

    def __init__(self) -> None:
        self._keys: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows)

    def add(self, ids: Sequence[str], rows: np.ndarray) -> None:
        """Remember ids and the rows, (ids,) int64, that they stand in."""
        keys = np.frombuffer(b"".join(map(id_key, ids)), dtype=np.uint64)
        self._keys.append(keys.reshape(len(ids), 2))
        self._rows.append(rows.astype(np.int64))

    def twice(self) -> list[tuple[int, int]]:
        """Return the rows of neighbouring occurrences of one id, in the order of the later row."""
        if not self._keys:
            return []
        keys, rows = np.concatenate(self._keys), np.concatenate(self._rows)
        order = np.lexsort((rows, keys[:, 1], keys[:, 0]))
        same = np.flatnonzero((keys[order[1:]] == keys[order[:-1]]).all(axis=1))
        pairs = [(int(rows[order[place]]), int(rows[order[place + 1]])) for place in same]
        return sorted(pairs, key=lambda pair: pair[1])
