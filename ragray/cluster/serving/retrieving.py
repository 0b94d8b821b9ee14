"""The deployment that retrieves. In: queries, each with the snapshot that it is to be searched in. Out: what is found there.

A replica holds the question encoder and the reranker, and opens what requests name: in its own process, or, with
`retrieve.num_shards`, spread over actors of its own, as in training. A Gateway may hold one in its own process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from ragray.cluster.serving.metrics import RayMetrics
from ragray.config import Config
from ragray.errors import RagrayError
from ragray.retrieve.load import SnapshotOpener
from ragray.retrieve.retriever import Embedded, Retriever, RetrieverModels, SearchOptions
from ragray.retrieve.shelf import IndexSource, OpenSnapshot, Shelf
from ragray.serve.load.gathering import Gatherer
from ragray.serve.local import Places
from ragray.serve.metrics import gauges
from ragray.types import Hit, Passage, RetrievalResult

logger = logging.getLogger("ragray.serve")

RETRIEVE_BATCH = 64
"""Requests that a Retriever searches together at most: all that have come while it searched for those before them."""

SMALL = 16
"""Queries of a request at most that is searched together with others; a larger one is searched by itself, beside them."""

ASK_TIMEOUT_S = 5.0

Source = IndexSource | None
"""What a request is to be searched in; None is what this replica searched last, for a Gateway that has just started."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """The queries of one request, all of which are searched for in one snapshot."""

    queries: tuple[str, ...]
    k: int
    options: SearchOptions
    source: Source


Found = Sequence[RetrievalResult]
"""What was found for the queries of a `Lookup`, in their order."""


class RetrieverCalls(Protocol):
    """What a Gateway asks of a Retriever, in its own process or in another; all may raise `RagrayError`."""

    async def search(self, lookup: Lookup) -> Found:
        """Search for the queries of one request."""

    async def embed(self, texts: Sequence[str], source: Source) -> Embedded:
        """Encode texts as questions are encoded."""

    async def rerank(self, query: str, passages: Sequence[Passage], source: Source) -> list[Hit]:
        """Order passages by the reranker's scores, best first."""

    async def models(self, source: Source) -> RetrieverModels:
        """Name the models that are loaded."""


def opener(config: Config) -> OpenSnapshot:
    """Return what opens snapshots: in this process, or spread over actors where `retrieve.num_shards` asks for several."""
    if config.retrieve.num_shards == 1:
        return SnapshotOpener(config, engine=config.serve.question_engine)
    from ragray.cluster.retrieval.sharded import ShardedOpener

    return ShardedOpener(config)


class RetrieverReplica:
    """Searches the snapshots that requests name; it starts once the first is open, and opens others beside it."""

    def __init__(self, config: Config, source: IndexSource, open_: OpenSnapshot | None = None) -> None:
        """Raise `RagrayError` where neither the current snapshot nor the one that the service serves can be opened."""
        self.shelf = Shelf(open_ or opener(config))
        try:
            self.first = self.shelf.open_first(source)
        except RagrayError:
            served = _served_by_gateways()
            if served is None:
                raise
            self.first = self.shelf.open_first(served)  # `CURRENT` names one that the service refused
        self._metrics = RayMetrics()
        self._places = Places(config.serve.max_queued_requests + 2 * RETRIEVE_BATCH)
        self._gather = Gatherer(self._search_together, most=RETRIEVE_BATCH)

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

    async def search(self, lookup: Lookup) -> Found:
        """Search for the queries of one request; raises what searching for them alone raises.

        Raises:
            OverloadedError: as many requests wait as may wait.
        """
        with self._places.hold():
            if len(lookup.queries) <= SMALL:
                return await self._gather(lookup)
            retriever = await self._retriever(lookup.source)
            return await asyncio.to_thread(retriever.search, lookup.queries, lookup.k, lookup.options)

    async def search_all(self, lookups: Sequence[Lookup]) -> list[Found | Exception]:
        """Search for several requests that came in one call; an error is only that of the request that it is about."""
        found = await asyncio.gather(*map(self.search, lookups), return_exceptions=True)
        return [_to_send(each) for each in found]

    async def _search_together(self, lookups: Sequence[Lookup]) -> list[Found | Exception]:
        retrievers = await asyncio.gather(*(self._retriever(each.source) for each in lookups), return_exceptions=True)
        return await asyncio.to_thread(search_together, lookups, retrievers)

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


def search_together(
    lookups: Sequence[Lookup], retrievers: Sequence[Retriever | BaseException]
) -> list[Found | Exception]:
    """Search for requests, each with its own retriever, or the error in its place; those that want the same are one search.

    Each gets what it would get alone, an error included.
    """
    found: dict[int, Found | Exception] = {}
    wants = [(each.k, each.options, id(retriever)) for each, retriever in zip(lookups, retrievers, strict=True)]
    for want in dict.fromkeys(wants):
        rows = [row for row, wanted in enumerate(wants) if wanted == want]
        results = _search(retrievers[rows[0]], [lookups[row] for row in rows])
        found.update(zip(rows, results, strict=True))
    return [found[row] for row in range(len(lookups))]


def _search(retriever: Retriever | BaseException, lookups: Sequence[Lookup]) -> list[Found | Exception]:
    """Search for requests together; if that fails, for each by itself, so that only the one at fault fails."""
    try:
        if isinstance(retriever, BaseException):
            raise retriever
        queries = [query for each in lookups for query in each.queries]
        found = iter(retriever.search(queries, lookups[0].k, lookups[0].options))
        return [list(islice(found, len(each.queries))) for each in lookups]
    except Exception as err:
        if len(lookups) == 1:
            return [err]
        return [result for each in lookups for result in _search(retriever, [each])]


def _to_send(found: Found | BaseException) -> Found | Exception:
    """Return what may travel to another process; an error of a library, which may not, is logged here and told in words."""
    if not isinstance(found, BaseException) or isinstance(found, RagrayError):
        return found
    logger.error("a search failed", exc_info=found)
    return RuntimeError(f"{type(found).__name__}: {found}")


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
