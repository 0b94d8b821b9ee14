"""What Ray Serve runs. In: an index, a run, a configuration. Out: an application of three deployments.

::

    Gateway (HTTP, one coroutine per request) -> Retriever (batched search) -> Generator (answers written side by side)

Plain classes; `application` wraps them. The Gateway follows the index's `CURRENT`, or the ``user_config`` that Serve hands to it: a
new snapshot is opened beside the old one and switched to without restarting anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

from ragray.cluster.serving.metrics import RayMetrics
from ragray.cluster.serving.retrieving import RETRIEVE_BATCH, RetrieverReplica
from ragray.cluster.serving.scaling import (
    GATEWAY_CPUS,
    GATEWAY_REQUESTS,
    RETRIEVER_CPUS,
    copies,
    generator_copies,
    retriever_copies,
)
from ragray.config import Config, GenerateConfig
from ragray.generate.engine import Generation, GenerationRequest, Piece, Sampling
from ragray.index.store.snapshot import read_snapshot
from ragray.retrieve.shelf import IndexSource
from ragray.retrieve.tuned import with_tuned
from ragray.run import Run
from ragray.serve.metrics import gauges
from ragray.serve.model_thread import ModelThread

if TYPE_CHECKING:
    from ray.serve import Application

HEALTH_CHECK_PERIOD_S = 2.0
"""Seconds between two health checks of a replica: so long its death may go unnoticed."""


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
    opened.require_index(snapshot.encoder, here=f"index snapshot {snapshot.name}", there=f"run {opened.name}")
    return opened.name


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
    source = IndexSource(index, run)
    retrieving = None
    if config.serve.retriever == "deployment":
        retrieving = serve.deployment(
            name="Retriever",
            ray_actor_options={"num_cpus": RETRIEVER_CPUS, "num_gpus": config.serve.retriever_gpus},
            max_ongoing_requests=2 * RETRIEVE_BATCH,
            max_queued_requests=config.serve.max_queued_requests,
            **copies(retriever_copies(config), config.serve),
            **common,
        )(RetrieverReplica).bind(config, source)
    generating = serve.deployment(
        name="Generator",
        ray_actor_options={"num_cpus": 1, "num_gpus": config.serve.generator_gpus},
        max_ongoing_requests=2 * config.generate.batch_size,
        max_queued_requests=config.serve.max_queued_requests,
        **copies(generator_copies(config), config.serve),
        **common,
    )(GeneratorReplica).bind(config.generate, run)
    gateway = serve.deployment(
        name="Gateway",
        num_replicas=config.serve.gateway_replicas,
        ray_actor_options={"num_cpus": GATEWAY_CPUS, "num_gpus": 0 if retrieving else config.serve.retriever_gpus},
        max_ongoing_requests=GATEWAY_REQUESTS,
        max_queued_requests=GATEWAY_REQUESTS,
        **common,
    )(serve.ingress()(Gateway))
    return gateway.bind(retrieving, generating, with_tuned(config, Path(index)), source, run_name)
