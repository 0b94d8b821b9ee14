"""Duplicate ids among many. In: ids with their rows. Out: the rows whose id occurs twice.

Memory: 24 bytes per id, 33 while duplicates are looked for, and some 180 bytes more per duplicate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragray.corpus.dedup import id_key


class IdKeys:
    """Collects ids as 128-bit hashes, and finds duplicates by sorting the first halves of the hashes."""

    def __init__(self) -> None:
        self._keys: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows)

    def add(self, ids: Sequence[str], rows: np.ndarray) -> None:
        """Remember ids and their rows, (ids,) int64."""
        keys = np.frombuffer(b"".join(map(id_key, ids)), dtype=np.uint64)
        self._keys.append(keys.reshape(len(ids), 2))
        self._rows.append(rows.astype(np.int64))

    def duplicates(self) -> list[tuple[int, int]]:
        """Return the rows of neighbouring occurrences of one id, in the order of the later row."""
        halves = self._sorted_halves()
        doubled = np.unique(halves[1:][halves[1:] == halves[:-1]])
        del halves
        if not len(doubled):
            return []
        chosen = [_among(keys[:, 0], doubled) for keys in self._keys]
        keys, rows = (
            np.concatenate([part[mask] for part, mask in zip(parts, chosen, strict=True)])
            for parts in (self._keys, self._rows)
        )
        order = np.lexsort((rows, keys[:, 1], keys[:, 0]))
        same = np.flatnonzero((keys[order[1:]] == keys[order[:-1]]).all(axis=1))
        pairs = [(int(rows[order[place]]), int(rows[order[place + 1]])) for place in same]
        return sorted(pairs, key=lambda pair: pair[1])

    def num_distinct(self) -> int:
        """Count the distinct ids, by 64 bits: of a billion, one may be missed."""
        halves = self._sorted_halves()
        return min(len(halves), 1) + int(np.count_nonzero(halves[1:] != halves[:-1]))

    def _sorted_halves(self) -> np.ndarray:
        halves = np.concatenate([np.empty(0, np.uint64), *(keys[:, 0] for keys in self._keys)])
        halves.sort()
        return halves


def _among(halves: np.ndarray, doubled: np.ndarray) -> np.ndarray:
    """Return which halves are among the doubled ones, of which there is at least one."""
    places = np.minimum(np.searchsorted(doubled, halves), len(doubled) - 1)
    found: np.ndarray = doubled[places] == halves
    return found
