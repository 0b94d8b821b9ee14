"""What Ray Serve runs. In: an index, a run, a configuration. Out: an application of three deployments.

::

    Gateway (HTTP, one coroutine per request) -> Retriever (batched search) -> Generator (answers written side by side)

Plain classes here; `application` wraps them. The folder of the index is in the Retriever's ``user_config``, which Serve
hands to running replicas: a new index is loaded beside the old one and switched without restarting anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from ragray.cluster.serving.metrics import RayMetrics
from ragray.config import Config, GenerateConfig
from ragray.errors import ConfigError, ServingError
from ragray.generate.engine import Generation, GenerationRequest, Piece, Sampling
from ragray.index.store.snapshot import read_snapshot
from ragray.retrieve.holder import SnapshotHolder
from ragray.retrieve.retriever import AS_SET, Embedded, Retriever, RetrieverModels, SearchOptions
from ragray.retrieve.tuned import with_tuned
from ragray.run import Run
from ragray.serve.answerer import Health
from ragray.serve.metrics import gauges
from ragray.serve.metrics.catalogue import SNAPSHOT_REFUSED
from ragray.serve.model_thread import ModelThread
from ragray.types import Hit, Passage, RetrievalResult

if TYPE_CHECKING:
    from ray.serve import Application

logger = logging.getLogger("ragray.serve")

RETRIEVE_BATCH = 64
RETRIEVE_WAIT_S = 0.002
"""How long the first request of a batch waits for others. Short: while a batch is computed, the next one fills anyway."""

HEALTH_CHECK_PERIOD_S = 2.0
"""Seconds between two health checks of a replica: so long its death may go unnoticed."""


class LoadRetriever(Protocol):
    """Opens an index with the question encoder of a run."""

    def __call__(self, index: Path, run: Path | None, config: Config) -> Retriever:
        """Return a retriever over the index's current snapshot."""


def load_retriever(index: Path, run: Path | None, config: Config) -> Retriever:
    """Open an index with the question encoder of a run, or with the index's own."""
    from ragray.retrieve.load import load_retriever as load

    return load(index, run, config)


def check_artifacts(index: Path, run: Path | None) -> str:
    """Open the index's snapshot and the run's manifest, so that what is wrong fails here and not in a replica.

    Returns the run's name, "" without one.

    Raises:
        ArtifactError: one of them was never finished, or is damaged.
        EncoderMismatchError: the run was trained on vectors of another encoder.
    """
    snapshot = read_snapshot(index)
    if run is None:
        return ""
    opened = Run.open(run)
    snapshot.encoder.require(opened.facts.encoder, here=f"index snapshot {snapshot.name}", there=f"run {opened.name}")
    return opened.name


@dataclass(frozen=True, slots=True)
class IndexSource:
    """Which index to serve: its folder, the run whose question encoder searches it, the snapshot expected in it."""

    index: str
    run: str = ""
    snapshot: str = ""

    @classmethod
    def parse(cls, user_config: Mapping[str, JsonValue]) -> IndexSource:
        """Read the Retriever's ``user_config``; raises `ConfigError` naming the key that is wrong."""
        for key, value in user_config.items():
            if key not in ("index", "run", "snapshot"):
                raise ConfigError(f"user_config of Retriever: unknown key '{key}' (known: index, run, snapshot)")
            if not isinstance(value, str):
                raise ConfigError(f"user_config of Retriever: {key}={value!r}, expected a string")
        if not user_config.get("index"):
            raise ConfigError("user_config of Retriever: no 'index', expected the folder of an index")
        return cls(**{key: str(value) for key, value in user_config.items()})

    def load(self, load: LoadRetriever, config: Config) -> Retriever:
        """Open the index; raises `ServingError` if another snapshot than the wanted one is current there."""
        retriever = load(Path(self.index), Path(self.run) if self.run else None, config)
        if self.snapshot and retriever.snapshot != self.snapshot:
            raise ServingError(
                f"{self.index}: snapshot {retriever.snapshot} is current, user_config wants {self.snapshot}"
            )
        return retriever


@dataclass(frozen=True, slots=True)
class OpenIndex:
    """An index that is loaded, and what asked for it."""

    source: IndexSource
    retriever: Retriever


class RetrieverReplica:
    """Searches one index. The replica starts if the first load succeeds; a later load that fails changes nothing."""

    def __init__(self, config: Config, load: LoadRetriever = load_retriever) -> None:
        from ray import serve

        self._config = config
        self._load = load
        self._holder = SnapshotHolder[OpenIndex]()
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="index")
        self._loading: set[asyncio.Task[None]] = set()
        self._last_error = ""
        self._metrics = RayMetrics()
        batched = serve.batch(max_batch_size=RETRIEVE_BATCH, batch_wait_timeout_s=RETRIEVE_WAIT_S)
        self._search: Callable[[str, int, SearchOptions], Awaitable[RetrievalResult | Exception]]
        self._search = batched(self.search_batch)

    async def reconfigure(self, user_config: Mapping[str, JsonValue]) -> None:
        """Serve the index that ``user_config`` names; returns at once and never raises where one is served already.

        While this runs, Serve sends the replica no requests, and if it raised, Serve would kill the replica.
        """
        number = self._holder.reserve()
        if self._holder.current is None:
            await self._swap(number, user_config)
        else:
            task = asyncio.create_task(self._try_to_swap(number, user_config))
            self._loading.add(task)
            task.add_done_callback(self._loading.discard)

    async def health(self) -> Health:
        """Describe what is served."""
        index = self._require()
        return Health(
            index.retriever.snapshot,
            index=index.source.index,
            loading=bool(self._loading),
            last_error=self._last_error,
        )

    def check_health(self) -> None:
        """Show what is to be watched: Serve calls this every few seconds."""
        self._metrics.set(SNAPSHOT_REFUSED, bool(self._last_error))
        if current := self._holder.current:
            self._metrics.show(gauges.of_retriever(current.snapshot.retriever))

    async def _try_to_swap(self, number: int, user_config: Mapping[str, JsonValue]) -> None:
        try:
            if await self._swap(number, user_config):
                self._last_error = ""
        except Exception as err:
            self._last_error = f"{type(err).__name__}: {err}"
            logger.exception("the index of %s is refused, the older one is served on", dict(user_config))

    async def _swap(self, number: int, user_config: Mapping[str, JsonValue]) -> bool:
        """Load an index beside the served one and switch to it, both in the one thread that loads; the latest request wins."""

        def open_index() -> OpenIndex:
            source = IndexSource.parse(user_config)
            return OpenIndex(source, source.load(self._load, self._config))

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._loader, self._holder.swap, number, open_index)

    async def search(self, query: str, k: int, options: SearchOptions = AS_SET) -> RetrievalResult:
        """Search for one query, as one of a batch; raises what searching for it alone raises."""
        found = await self._search(query, k, options)
        if isinstance(found, Exception):
            raise found
        return found

    async def search_many(self, queries: list[str], k: int, options: SearchOptions) -> list[RetrievalResult]:
        """Search for the queries of one request, all of them in one snapshot."""
        return await asyncio.to_thread(self._require().retriever.search, queries, k, options)

    async def search_batch(
        self, queries: list[str], ks: list[int], options: list[SearchOptions]
    ) -> list[RetrievalResult | Exception]:
        """Search a batch, all of it in one snapshot, also during a swap; an error is only that of the query that it is about."""
        return await asyncio.to_thread(search_batch, self._require().retriever, queries, ks, options)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Encode texts as questions are encoded."""
        return await asyncio.to_thread(self._require().retriever.embed, texts)

    async def rerank(self, query: str, passages: Sequence[Passage]) -> list[Hit]:
        """Order passages by the reranker's scores, best first."""
        return await asyncio.to_thread(self._require().retriever.rerank, query, passages)

    async def models(self) -> RetrieverModels:
        """Name the models that are loaded."""
        return self._require().retriever.models

    def _require(self) -> OpenIndex:
        current = self._holder.current
        if current is None:
            raise ServingError("no index is loaded: the Retriever deployment has no user_config, set its 'index'")
        return current.snapshot


def search_batch(
    retriever: Retriever, queries: Sequence[str], ks: Sequence[int], options: Sequence[SearchOptions]
) -> list[RetrievalResult | Exception]:
    """Search queries that want different passages; each gets what it would get alone, an error included."""
    found: dict[int, RetrievalResult | Exception] = {}
    wants = list(zip(ks, options, strict=True))
    for want in dict.fromkeys(wants):
        rows = [row for row, wanted in enumerate(wants) if wanted == want]
        found.update(zip(rows, _search_rows(retriever, [queries[row] for row in rows], *want), strict=True))
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


class GeneratorReplica:
    """Writes the answers of all its requests side by side; a request joins and leaves between two tokens."""

    def __init__(self, config: GenerateConfig, run: str) -> None:
        from ragray.generate.load import load_generator

        self._thread = ModelThread(load_generator(config, Path(run) if run else None))
        self._metrics = RayMetrics()

    def check_health(self) -> None:
        """Show what is to be watched: Serve calls this every few seconds."""
        self._metrics.show(gauges.of_writer(self._thread))

    async def generate(self, request: GenerationRequest, sampling: Sampling) -> Generation:
        """Answer a request."""
        return await self._thread.generate(request, sampling)

    async def stream(self, request: GenerationRequest, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece, then, last, the whole."""
        async with contextlib.aclosing(self._thread.stream(request, sampling)) as pieces:
            async for piece in pieces:
                yield piece


def application(index: str, run: str, config: Config, *, run_name: str = "") -> Application:
    """Wrap the three classes as deployments and bind them together; nothing is loaded before a replica starts.

    ``index`` and ``run`` are folders that every node sees (run "" is the base model); answers name ``run_name``.
    """
    from ray import serve

    from ragray.cluster.serving.gateway import GATEWAY_REQUESTS, Gateway

    if run:
        config = Run.open(Path(run)).settings(config)
    common = {
        "backpressure_config": {"status_code": 429, "retry_after_s": 1},
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "graceful_shutdown_wait_loop_s": 0.2,
        "graceful_shutdown_timeout_s": config.serve.request_timeout_s,
    }
    retrieving = serve.deployment(
        name="Retriever",
        num_replicas=config.retrieve.num_replicas,
        ray_actor_options={"num_cpus": 0.5, "num_gpus": config.serve.retriever_gpus},
        max_ongoing_requests=2 * RETRIEVE_BATCH,
        user_config={"index": index, "run": run},
        max_queued_requests=config.serve.max_queued_requests,
        **common,
    )(RetrieverReplica).bind(config)
    generating = serve.deployment(
        name="Generator",
        num_replicas=config.serve.generator_replicas,
        ray_actor_options={"num_cpus": 1, "num_gpus": config.serve.generator_gpus},
        max_ongoing_requests=2 * config.generate.batch_size,
        max_queued_requests=config.serve.max_queued_requests,
        **common,
    )(GeneratorReplica).bind(config.generate, run)
    gateway = serve.deployment(
        name="Gateway",
        ray_actor_options={"num_cpus": 0.1},
        max_ongoing_requests=GATEWAY_REQUESTS,
        max_queued_requests=GATEWAY_REQUESTS,
        **common,
    )(serve.ingress()(Gateway))
    return gateway.bind(retrieving, generating, with_tuned(config, Path(index)), run_name, run)
