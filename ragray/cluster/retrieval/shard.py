"""The work of a retriever actor. In: a search and the snapshot that it names. Out: what this shard of the snapshot holds.

N queries, D dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ragray.embed.encoder import Vectors
from ragray.index.search.reader import IndexReader
from ragray.index.search.result import SearchResult
from ragray.index.store.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Served:
    """A snapshot that a pool serves; every swap counts ``number`` up."""

    number: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Query:
    """What to search for: texts, where there are any, by BM25, otherwise the vectors (N, D). Texts may have vectors, too."""

    texts: tuple[str, ...]
    vectors_ND: Vectors | None
    k: int
    where: str
    with_vectors: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What a shard found, None where it has released the snapshot that was named; and a newer snapshot, if it knows of one."""

    found: SearchResult | None
    newer: Served | None


class ShardSearcher:
    """Searches every ``num_shards``-th segment; a fresh actor opens the snapshot that the first search names."""

    def __init__(self, index: str, shard: int, num_shards: int, threads: int) -> None:
        self._index = Path(index)
        self._shard, self._num_shards, self._threads = shard, num_shards, threads
        self._readers: dict[str, IndexReader] = {}
        self._served: Served | None = None

    def open(self, name: str) -> IndexReader:
        """Open a snapshot beside those that are open; raises as `IndexReader.open` does."""
        if name not in self._readers:
            self._readers[name] = IndexReader.open(
                self._index, snapshot=name, shard=self._shard, num_shards=self._num_shards, threads=self._threads
            )
        return self._readers[name]

    def prepare(self, name: str) -> None:
        """Open a snapshot before it is searched."""
        self.open(name)

    def serve(self, number: int, name: str) -> None:
        """Tell callers from now on of a snapshot, the ``number``-th that the pool serves, and release the one before."""
        if self._served is not None and number <= self._served.number:
            return
        before, self._served = self._served, Served(number, self.open(name).snapshot)
        if before is not None:
            self.release(before.snapshot.name)

    def release(self, name: str) -> None:
        """Close a snapshot, unless it is the one that is served."""
        if self._served is None or name != self._served.snapshot.name:
            self._readers.pop(name, None)

    def newest(self) -> Served | None:
        """Return the newest snapshot that this actor knows of."""
        return self._served

    def search(self, number: int, name: str, query: Query) -> Reply:
        """Search a snapshot, the ``number``-th that the pool serves."""
        self.serve(number, name)
        assert self._served is not None
        reader = self._readers.get(name)
        return Reply(_search(reader, query) if reader else None, self._served if self._served.number > number else None)


def _search(reader: IndexReader, query: Query) -> SearchResult:
    if query.vectors_ND is not None and not query.texts:
        return reader.search(query.vectors_ND, query.k, where=query.where, with_vectors=query.with_vectors)
    return reader.search_text(query.texts, query.k, where=query.where, vectors_ND=query.vectors_ND)
