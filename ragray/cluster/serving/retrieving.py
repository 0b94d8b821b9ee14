"""The deployment that retrieves. In: queries, each with the snapshot that it is to be searched in. Out: what is found there.

A replica holds the question encoder and the reranker, and opens what requests name: in its own process, or, with
`retrieve.num_shards`, spread over actors of its own, as in training. A Gateway may hold one in its own process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from ragray.cluster.serving.metrics import RayMetrics
from ragray.config import Config
from ragray.errors import RagrayError
from ragray.retrieve.load import SnapshotOpener
from ragray.retrieve.retriever import Embedded, Retriever, RetrieverModels, SearchOptions
from ragray.retrieve.shelf import IndexSource, OpenSnapshot, Shelf
from ragray.serve.metrics import gauges
from ragray.types import Hit, Passage, RetrievalResult

RETRIEVE_BATCH = 64
RETRIEVE_WAIT_S = 0.002
"""How long the first request of a batch waits for others. Short: while a batch is computed, the next one fills anyway."""

ASK_TIMEOUT_S = 5.0

Source = IndexSource | None
"""What a request is to be searched in; None is what this replica searched last, for a Gateway that has just started."""


class RetrieverCalls(Protocol):
    """What a Gateway asks of a Retriever, in its own process or in another; all may raise `RagrayError`."""

    async def search(self, query: str, k: int, options: SearchOptions, source: Source) -> RetrievalResult:
        """Search for one query."""

    async def search_many(
        self, queries: list[str], k: int, options: SearchOptions, source: Source
    ) -> list[RetrievalResult]:
        """Search for the queries of one request, all of them in one snapshot."""

    async def embed(self, texts: Sequence[str], source: Source) -> Embedded:
        """Encode texts as questions are encoded."""

    async def rerank(self, query: str, passages: Sequence[Passage], source: Source) -> list[Hit]:
        """Order passages by the reranker's scores, best first."""

    async def models(self, source: Source) -> RetrieverModels:
        """Name the models that are loaded."""


def opener(config: Config) -> OpenSnapshot:
    """Return what opens snapshots: in this process, or spread over actors where `retrieve.num_shards` asks for several."""
    if config.retrieve.num_shards == 1:
        return SnapshotOpener(config)
    from ragray.cluster.retrieval.sharded import ShardedOpener

    return ShardedOpener(config)


class RetrieverReplica:
    """Searches the snapshots that requests name; it starts once the first is open, and opens others beside it."""

    def __init__(self, config: Config, source: IndexSource, open_: OpenSnapshot | None = None) -> None:
        """Raise `RagrayError` where neither the current snapshot nor the one that the service serves can be opened."""
        from ray import serve

        self.shelf = Shelf(open_ or opener(config))
        try:
            self.first = self.shelf.open_first(source)
        except RagrayError:
            served = _served_by_gateways()
            if served is None:
                raise
            self.first = self.shelf.open_first(served)  # `CURRENT` names one that the service refused
        self._metrics = RayMetrics()
        batched = serve.batch(max_batch_size=RETRIEVE_BATCH, batch_wait_timeout_s=RETRIEVE_WAIT_S)
        self._search: Callable[[str, int, SearchOptions, Retriever], Awaitable[RetrievalResult | Exception]]
        self._search = batched(self.search_batch)

    def check_health(self) -> None:
        """Show what is to be watched: Serve calls this every few seconds."""
        if retriever := self.shelf.find(self.shelf.held() or self.first):
            self._metrics.show(gauges.of_retriever(retriever))

    async def held(self) -> IndexSource | None:
        """Return what was searched last."""
        return self.shelf.held()

    async def prepare(self, source: IndexSource) -> None:
        """Open and check a snapshot beside those that are open."""
        await asyncio.to_thread(self.shelf.prepare, source)

    async def keep(self, source: IndexSource) -> None:
        """Let go of all snapshots but one."""
        await asyncio.to_thread(self.shelf.keep, source)

    async def search(self, query: str, k: int, options: SearchOptions, source: Source) -> RetrievalResult:
        """Search for one query, as one of a batch; raises what searching for it alone raises."""
        found = await self._search(query, k, options, await self._retriever(source))
        if isinstance(found, Exception):
            raise found
        return found

    async def search_many(
        self, queries: list[str], k: int, options: SearchOptions, source: Source
    ) -> list[RetrievalResult]:
        """Search for the queries of one request, all of them in one snapshot."""
        retriever = await self._retriever(source)
        return await asyncio.to_thread(retriever.search, queries, k, options)

    async def search_batch(
        self, queries: list[str], ks: list[int], options: list[SearchOptions], retrievers: list[Retriever]
    ) -> list[RetrievalResult | Exception]:
        """Search a batch, each query in its snapshot; an error is only that of the query that it is about."""
        return await asyncio.to_thread(search_batch, queries, ks, options, retrievers)

    async def embed(self, texts: Sequence[str], source: Source) -> Embedded:
        """Encode texts as questions are encoded."""
        retriever = await self._retriever(source)
        return await asyncio.to_thread(retriever.embed, texts)

    async def rerank(self, query: str, passages: Sequence[Passage], source: Source) -> list[Hit]:
        """Order passages by the reranker's scores, best first."""
        retriever = await self._retriever(source)
        return await asyncio.to_thread(retriever.rerank, query, passages)

    async def models(self, source: Source) -> RetrieverModels:
        """Name the models that are loaded."""
        return (await self._retriever(source)).models

    async def _retriever(self, source: Source) -> Retriever:
        source = source or self.shelf.held() or self.first
        found = self.shelf.find(source)
        return await asyncio.to_thread(self.shelf.get, source) if found is None else found


def search_batch(
    queries: Sequence[str], ks: Sequence[int], options: Sequence[SearchOptions], retrievers: Sequence[Retriever]
) -> list[RetrievalResult | Exception]:
    """Search queries that want different passages; each gets what it would get alone, an error included."""
    found: dict[int, RetrievalResult | Exception] = {}
    wants = list(zip(ks, options, map(id, retrievers), strict=True))
    for want in dict.fromkeys(wants):
        rows = [row for row, wanted in enumerate(wants) if wanted == want]
        k, changed, _ = want
        results = _search_rows(retrievers[rows[0]], [queries[row] for row in rows], k, changed)
        found.update(zip(rows, results, strict=True))
    return [found[row] for row in range(len(queries))]


def _search_rows(
    retriever: Retriever, queries: list[str], k: int, options: SearchOptions
) -> list[RetrievalResult | Exception]:
    """Search queries together; if that fails, each by itself, so that only the one at fault fails."""
    try:
        return list(retriever.search(queries, k, options))
    except Exception as err:
        if len(queries) == 1:
            return [err]
        return [result for query in queries for result in _search_rows(retriever, [query], k, options)]


def _served_by_gateways() -> IndexSource | None:
    """Return what the Gateways of this application serve; None where none runs, or this is no replica."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    def ask() -> IndexSource | None:
        name = serve.get_replica_context().app_name
        gateways = serve.get_deployment_handle("Gateway", name)
        answers = gateways.broadcast("served").results(timeout_s=ASK_TIMEOUT_S, return_exceptions=True)
        return next((each for each in answers if isinstance(each, IndexSource)), None)

    with ThreadPoolExecutor(max_workers=1) as pool:  # a replica is made in its event loop, where waiting is refused
        try:
            return pool.submit(ask).result()
        except (RayError, RayServeException, TimeoutError):
            return None
