"""Retriever actors on Ray. In: an index, the configuration. Out: a running pool, and the port `Retriever` over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ragray.cluster.resources import Want, require
from ragray.cluster.retrieval.pool import HEDGE_S, OPENING, PoolSearch
from ragray.cluster.retrieval.pool import RetrieverPool as RetrieverPool
from ragray.cluster.retrieval.shard import Query, ShardSearcher
from ragray.config import RetrieveConfig
from ragray.embed.encoder import Encoder, Vectors
from ragray.index.search.result import SearchResult
from ragray.index.store.snapshot import Snapshot, read_snapshot
from ragray.retrieve.holder import Served
from ragray.retrieve.rerank import Reranker
from ragray.retrieve.retriever import AS_SET, Embedded, LocalRetriever, Mode, RetrieverModels, SearchOptions
from ragray.types import Hit, Passage, RetrievalResult


def pool_want(snapshot: Snapshot, config: RetrieveConfig) -> Want:
    """Return what a pool over a snapshot reserves."""
    count = _num_shards(snapshot, config) * config.num_replicas
    settings = ("retrieve.num_replicas", "retrieve.num_shards", "retrieve.cpus_per_actor")
    return Want("retriever actor", count, settings, cpus=config.cpus_per_actor)


def _num_shards(snapshot: Snapshot, config: RetrieveConfig) -> int:
    return max(1, min(config.num_shards, len(snapshot.segments)))


@contextmanager
def retriever_pool(
    index: Path, config: RetrieveConfig, *, snapshot: str | None = None, wait_s: float = 0, hedge_s: float = HEDGE_S
) -> Iterator[RetrieverPool]:
    """Start the actors on a snapshot (the current one by default), wait until all have opened it, end them with the block.

    ``wait_s``: the longest wait for CPUs that other jobs hold. ``hedge_s``: the shortest time before a second replica is queried.

    Raises:
        ArtifactError: the index cannot be opened; the actors' own error is shown.
        ClusterError: the cluster has no room for the actors.
    """
    import ray

    opened = read_snapshot(index, snapshot)
    num_shards = _num_shards(opened, config)
    require("retriever pool", [pool_want(opened, config)], wait_s=wait_s)
    actor = ray.remote(
        num_cpus=config.cpus_per_actor,
        max_restarts=-1,
        max_task_retries=0,  # the caller turns to another replica instead
        scheduling_strategy="SPREAD",
        concurrency_groups={OPENING: 1},
    )(ShardSearcher)
    replicas = tuple(
        tuple(actor.remote(str(index.resolve()), shard, num_shards, config.threads) for shard in range(num_shards))
        for _ in range(config.num_replicas)
    )
    pool = RetrieverPool(index.resolve(), Served(0, opened), opened.encoder, replicas, owner=True, hedge_s=hedge_s)
    try:
        pool.open_everywhere(pool.served)
        pool.announce()
        yield pool
    finally:
        for handle in pool.actors:
            ray.kill(handle)


@dataclass(frozen=True, slots=True)
class PinnedSearcher:
    """Searches one snapshot of a pool through a swap; raises `ReleasedError` once the actors have released it."""

    pool: RetrieverPool
    served: Served[Snapshot]

    @property
    def index(self) -> Path:
        """The folder of the index."""
        return self.pool.index

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that is searched."""
        return self.served.snapshot

    def search(
        self, vectors_ND: Vectors, k: int, /, *, where: str = "", texts: Sequence[str] | None = None
    ) -> SearchResult:
        """Search by vectors and wait."""
        return self._result(Query("vectors", None if texts is None else tuple(texts), vectors_ND, k, where))

    def search_text(
        self, queries: Sequence[str], k: int, /, *, where: str = "", vectors_ND: Vectors | None = None
    ) -> SearchResult:
        """Search by BM25 and wait."""
        return self._result(Query("texts", tuple(queries), vectors_ND, k, where))

    def _result(self, query: Query) -> SearchResult:
        search = PoolSearch(self.pool, query, self.served)
        found = search.result()
        if search.snapshot is not self.snapshot:
            raise ReleasedError(self.snapshot.name)
        return found


class ReleasedError(Exception):
    """A snapshot was swapped out between two searches for one question; the question is searched for anew."""


class PoolRetriever:
    """The port `Retriever` over a pool: every search is a `LocalRetriever`'s over the one snapshot that is served when it begins."""

    def __init__(
        self,
        pool: RetrieverPool,
        encoder: Encoder | None,
        settings: RetrieveConfig | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        """Raise as `LocalRetriever` does."""
        self._pool = pool
        self._parts = encoder, settings, reranker
        self._now()

    def _now(self) -> LocalRetriever:
        return LocalRetriever(PinnedSearcher(self._pool, self._pool.served), *self._parts)

    @property
    def snapshot(self) -> str:
        """Name of the snapshot that the next search uses."""
        return self._pool.snapshot.name

    def search(
        self,
        queries: Sequence[str],
        k: int,
        options: SearchOptions = AS_SET,
        *,
        where: str | None = None,
        mode: Mode | None = None,
    ) -> list[RetrievalResult]:
        """Return for every query its k best passages, best first; raises as `LocalRetriever.search` does."""
        while True:
            try:
                return self._now().search(queries, k, options, where=where, mode=mode)
            except ReleasedError:
                continue

    @property
    def models(self) -> RetrieverModels:
        """The models that are loaded."""
        return self._now().models

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Encode texts as questions are encoded; raises as `LocalRetriever.embed` does."""
        return self._now().embed(texts)

    def rerank(self, query: str, passages: Sequence[Passage]) -> list[Hit]:
        """Order passages by the reranker's scores; raises as `LocalRetriever.rerank` does."""
        return self._now().rerank(query, passages)
