"""The work of a retriever actor. In: a search, the snapshot that it names. Out: the best rows of that snapshot's segments held here.

N queries, D dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ragray.embed.encoder import Vectors
from ragray.index.check.canary import require_findable
from ragray.index.search.reader import IndexReader
from ragray.index.search.result import SearchResult
from ragray.index.store.snapshot import Snapshot
from ragray.retrieve.holder import Served, SnapshotHolder


@dataclass(frozen=True, slots=True)
class Query:
    """What to search for: ``by`` the texts or the vectors (N, D). Each may come with the other, for `SearchResult.both`."""

    by: Literal["texts", "vectors"]
    texts: tuple[str, ...] | None
    vectors_ND: Vectors | None
    k: int
    where: str
    with_vectors: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """The result of a shard, None where it has released the snapshot that was named; and a newer snapshot, if it knows of one."""

    found: SearchResult | None
    newer: Served[Snapshot] | None


class ShardSearcher:
    """Searches every ``num_shards``-th segment. Snapshots go by the number of the swap that brought them, and by name.

    Ray calls `search`, `serve` and `newest` in one thread, in the order they were sent: a search that was sent before a `serve`
    is answered before the old snapshot is released. `prepare` and `release` run beside them in a thread of their own.
    """

    def __init__(self, index: str, shard: int, num_shards: int, threads: int) -> None:
        self._index = Path(index)
        self._shard, self._num_shards, self._threads = shard, num_shards, threads
        self._holder = SnapshotHolder[IndexReader]()

    def prepare(self, number: int, name: str) -> None:
        """Open a snapshot before it is searched, and check it if another one is served; raises as `IndexReader.open` does."""
        self._holder.prepare(number, lambda: self._open_checked(name) if self._holder.current else self._open(name))

    def serve(self, number: int, name: str) -> None:
        """Serve a snapshot from now on unless a newer one is served; a restarted actor opens the first that it is told of."""
        current = self._holder.current
        if current is None or number > current.number:
            self._holder.switch(Served(number, self._holder.prepare(number, lambda: self._open(name))))

    def release(self, number: int) -> None:
        """Close a snapshot that was prepared and is not to be served."""
        self._holder.release(number)

    def newest(self) -> Served[Snapshot] | None:
        """Return the newest snapshot that this actor knows of."""
        current = self._holder.current
        return Served(current.number, current.snapshot.snapshot) if current else None

    def search(self, number: int, name: str, query: Query) -> Reply:
        """Search a snapshot."""
        self.serve(number, name)
        reader, newest = self._holder.find(number), self.newest()
        newer = newest if newest and newest.number > number else None
        return Reply(_search(reader, query) if reader else None, newer)

    def open_snapshots(self) -> list[str]:
        """Return the names of the snapshots that are open here."""
        return sorted(reader.snapshot.name for reader in self._holder.opened())

    def _open_checked(self, name: str) -> IndexReader:
        reader = self._open(name)
        require_findable(reader)
        return reader

    def _open(self, name: str) -> IndexReader:
        return IndexReader.open(
            self._index, snapshot=name, shard=self._shard, num_shards=self._num_shards, threads=self._threads
        )


def _search(reader: IndexReader, query: Query) -> SearchResult:
    if query.by == "vectors":
        assert query.vectors_ND is not None  # the pool sends them
        return reader.search(
            query.vectors_ND, query.k, where=query.where, with_vectors=query.with_vectors, texts=query.texts
        )
    return reader.search_text(query.texts or (), query.k, where=query.where, vectors_ND=query.vectors_ND)
