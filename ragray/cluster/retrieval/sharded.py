"""Snapshots spread over actors, for a service. In: which snapshot to open. Out: a retriever over the actors that hold its segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ragray.cluster.retrieval.pool import RetrieverPool
from ragray.cluster.retrieval.start import PinnedSearcher, ReleasedError, retriever_pool
from ragray.config import Config
from ragray.index.store.snapshot import Snapshot, current_name
from ragray.retrieve.holder import Served
from ragray.retrieve.load import ModelLoader
from ragray.retrieve.retriever import (
    AS_SET,
    Embedded,
    LocalRetriever,
    Retriever,
    RetrieverFacts,
    RetrieverModels,
    SearchOptions,
)
from ragray.retrieve.shelf import IndexSource
from ragray.types import Hit, Passage, RetrievalResult


class ShardedOpener:
    """Opens snapshots in a pool of actors of its own, which end with this process; one shard is one actor."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._settings = config.retrieve.model_copy(update={"num_replicas": 1})
        self._models = ModelLoader(config, engine=config.serve.question_engine)
        self._pools: dict[str, tuple[RetrieverPool, ExitStack]] = {}

    def __call__(self, source: IndexSource, *, checked: bool) -> Retriever:
        """Open a snapshot in all actors; raises as `retriever_pool` and `RetrieverPool.swap` do."""
        name = source.snapshot or current_name(Path(source.index))
        if source.index in self._pools:
            pool, _ = self._pools[source.index]
            served = pool.prepare(name)
        else:
            pool = self._start(source.index, name)
            served = pool.served
        models = self._models(served.snapshot, source.run)

        def over(served: Served[Snapshot]) -> LocalRetriever:
            return LocalRetriever(PinnedSearcher(pool, served), models.encoder, self._settings, models.reranker)

        return ShardedRetriever(pool, served, over)

    def _start(self, index: str, snapshot: str) -> RetrieverPool:
        """Start the actors; of two indexes before this one, those of the older end."""
        started = ExitStack()
        wait_s = self._config.cluster.wait_s
        pool = started.enter_context(retriever_pool(Path(index), self._settings, snapshot=snapshot, wait_s=wait_s))
        for old in list(self._pools)[:-1]:
            self._pools.pop(old)[1].close()
        self._pools[index] = pool, started
        return pool


class ShardedRetriever:
    """The port `Retriever` over a snapshot in a pool.

    The actors let a snapshot go when a later one is searched. Where this one is searched once more, they open it again.
    """

    def __init__(
        self, pool: RetrieverPool, served: Served[Snapshot], over: Callable[[Served[Snapshot]], LocalRetriever]
    ) -> None:
        self._pool = pool
        self._over = over
        self._retriever = over(served)

    @property
    def snapshot(self) -> str:
        """Name of the snapshot."""
        return self._retriever.snapshot

    @property
    def models(self) -> RetrieverModels:
        """The models that are loaded."""
        return self._retriever.models

    @property
    def facts(self) -> RetrieverFacts:
        """What is to be watched."""
        return self._retriever.facts

    def search(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        """Return for every query its k best passages, best first."""
        while True:
            try:
                return self._retriever.search(queries, k, options)
            except ReleasedError:
                self._retriever = self._over(self._pool.prepare(self.snapshot))

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Encode texts as questions are encoded."""
        return self._retriever.embed(texts)

    def rerank(self, query: str, passages: Sequence[Passage]) -> list[Hit]:
        """Order passages by the reranker's scores, best first."""
        return self._retriever.rerank(query, passages)
