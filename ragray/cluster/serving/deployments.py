"""What Ray Serve runs. In: an index, a run, a configuration. Out: an application of three deployments.

::

    Gateway (HTTP, one coroutine a request) -> Retriever (batched search) -> Generator (answers written side by side)

Plain classes here; `application` wraps them. The folder of the index is in the Retriever's ``user_config``, which Serve
hands to running replicas: a new index is loaded beside the old one and switched without restarting anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from ragray.config import Config, GenerateConfig
from ragray.errors import ConfigError, ServingError
from ragray.generate.generator import Generation, Prompt
from ragray.index.store.snapshot import read_snapshot
from ragray.retrieve.retriever import Retriever
from ragray.run import Run
from ragray.serve.answerer import Found, Health
from ragray.serve.batcher import Batcher

if TYPE_CHECKING:
    from ray.serve import Application

logger = logging.getLogger("ragray.serve")

RETRIEVE_BATCH = 64
RETRIEVE_WAIT_S = 0.002
"""How long the first request of a batch waits for others; while a batch is computed, the next one fills anyway."""

GATEWAY_REQUESTS = 1000
"""Requests that a Gateway holds; it only waits, so that the deployments behind it are what refuses more."""

HEALTH_CHECK_PERIOD_S = 2.0
"""How long a replica may be dead unnoticed."""


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


class RetrieverReplica:
    """Searches one index. The first load decides whether the replica starts; a later one that fails changes nothing."""

    def __init__(self, config: Config, load: LoadRetriever = load_retriever) -> None:
        from ray import serve

        self._config = config
        self._load = load
        self._served: tuple[IndexSource, Retriever] | None = None
        self._wanted: Mapping[str, JsonValue] = {}
        self._last_error = ""
        self._loading = asyncio.Lock()
        self._switch: asyncio.Task[None] | None = None
        batched = serve.batch(max_batch_size=RETRIEVE_BATCH, batch_wait_timeout_s=RETRIEVE_WAIT_S)
        self._search: Callable[[str, int], Awaitable[Found | Exception]] = batched(self.search_many)

    async def reconfigure(self, user_config: Mapping[str, JsonValue]) -> None:
        """Serve the index that ``user_config`` names; returns at once and never raises where one is served already.

        While this runs, Serve sends the replica no requests, and if it raised, Serve would kill the replica.
        """
        self._wanted = user_config
        if self._served is None:
            source = IndexSource.parse(user_config)
            self._served = source, await asyncio.to_thread(source.load, self._load, self._config)
        else:
            self._switch = asyncio.create_task(self._switch_to(user_config))

    async def health(self) -> Health:
        """Describe what is served."""
        source, retriever = self._require()
        return Health(
            retriever.snapshot, index=source.index, loading=self._loading.locked(), last_error=self._last_error
        )

    async def _switch_to(self, user_config: Mapping[str, JsonValue]) -> None:
        """Load an index beside the served one, then switch; of several requests the latest wins."""
        async with self._loading:
            if self._wanted is not user_config:
                return
            try:
                source = IndexSource.parse(user_config)
                retriever = await asyncio.to_thread(source.load, self._load, self._config)
            except Exception as err:
                self._last_error = f"{type(err).__name__}: {err}"
                logger.exception("the index of %s is refused, the older one is served on", dict(user_config))
                return
            if self._wanted is user_config:
                self._served, self._last_error = (source, retriever), ""

    async def search(self, query: str, k: int) -> Found:
        """Search for one query, as one of a batch; raises what searching for it alone raises."""
        found = await self._search(query, k)
        if isinstance(found, Exception):
            raise found
        return found

    async def search_many(self, queries: list[str], ks: list[int]) -> list[Found | Exception]:
        """Search a batch, all of it in one snapshot; an error is only that of the query that it is about."""
        _, retriever = self._require()
        return await asyncio.to_thread(search_batch, retriever, queries, ks)

    def _require(self) -> tuple[IndexSource, Retriever]:
        if self._served is None:
            raise ServingError("no index is loaded: the Retriever deployment has no user_config, set its 'index'")
        return self._served


def search_batch(retriever: Retriever, queries: Sequence[str], ks: Sequence[int]) -> list[Found | Exception]:
    """Search queries that want different numbers of passages; each gets what it would get alone, an error included."""
    found: dict[int, Found | Exception] = {}
    for k in sorted(set(ks)):
        rows = [row for row, wanted in enumerate(ks) if wanted == k]
        found.update(zip(rows, _search_rows(retriever, [queries[row] for row in rows], k), strict=True))
    return [found[row] for row in range(len(queries))]


def _search_rows(retriever: Retriever, queries: list[str], k: int) -> list[Found | Exception]:
    """Search queries together; if that fails, each by itself, so that the others do not share in the failure."""
    try:
        return [Found(retriever.snapshot, tuple(hits)) for hits in retriever.search(queries, k)]
    except Exception as err:
        if len(queries) == 1:
            return [err]
        return [result for query in queries for result in _search_rows(retriever, [query], k)]


class GeneratorReplica:
    """Writes the answers of all its requests side by side; a request joins and leaves between two tokens."""

    def __init__(self, config: GenerateConfig, run: str) -> None:
        from ragray.generate.load import load_generator

        self._batcher = Batcher(load_generator(config, Path(run) if run else None))

    async def generate(self, prompt: Prompt) -> Generation:
        """Answer a prompt."""
        return await self._batcher.generate(prompt)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str | Generation, None]:
        """Yield an answer piece by piece, then, last, the whole."""
        async with contextlib.aclosing(self._batcher.stream(prompt)) as pieces:
            async for piece in pieces:
                yield piece


def application(index: str, run: str, config: Config, *, run_name: str = "") -> Application:
    """Wrap the three classes as deployments and bind them together; nothing is loaded before a replica starts.

    ``index`` and ``run`` are folders that every node sees (run "" is the base model); answers name ``run_name``.
    """
    from ray import serve

    from ragray.cluster.serving.gateway import Gateway

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
        num_replicas=config.serve.retriever_replicas,
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
    return gateway.bind(retrieving, generating, config, run_name, run)
