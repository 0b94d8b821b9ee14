"""The ingress on Ray Serve. In: handles of Retriever and Generator. Out: an `Answerer` over them, behind HTTP.

A Gateway follows the index and names the snapshot of every search: all replicas and shards answer a request from that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from ragray.cluster.serving.metrics import RayMetrics
from ragray.cluster.serving.remote import PAUSES_S, EndedError, answer_of, remote, translate_ray_errors
from ragray.cluster.serving.retrieving import Lookup, RetrieverCalls, RetrieverReplica
from ragray.cluster.serving.scaling import GATEWAY_REQUESTS
from ragray.cluster.serving.service import loading
from ragray.config import Config, ServeConfig
from ragray.errors import RagrayError, ServingError
from ragray.generate.engine import Generation, GenerationRequest, Piece, Sampling
from ragray.generate.load import load_template
from ragray.generate.orchestrator import AnswerWriter, Orchestrator
from ragray.generate.template import PromptTemplate
from ragray.retrieve.caller import current_caller
from ragray.retrieve.follow import Follower
from ragray.retrieve.retriever import AS_SET, Embedded, RetrieverModels, SearchOptions
from ragray.retrieve.shelf import IndexSource
from ragray.serve.answerer import Health, health_of
from ragray.serve.app import create_app
from ragray.serve.guard import Gate
from ragray.serve.load.admitted import AdmittedWriter
from ragray.serve.local import Places
from ragray.serve.metrics.catalogue import SNAPSHOT_REFUSED, Metric
from ragray.types import Hit, Passage, RetrievalResult

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve.handle import DeploymentHandle


class Gateway:
    """The ingress deployment: the HTTP interface over `RayAnswerer`."""

    def __init__(
        self,
        retriever: DeploymentHandle | None,
        generator: DeploymentHandle,
        config: Config,
        source: IndexSource,
        run: str,
    ) -> None:
        """Take the name of the run; without a handle the Retriever is made here, in this process."""
        folder = Path(source.run) if source.run else None
        inside = self._inside = None if retriever else RetrieverReplica(config, source)
        calls, keeper, served = (inside, inside.shelf, inside.first) if inside else remote(retriever)
        self._follower = Follower(source, keeper, served, once=not config.serve.follow_index).start()
        self._answerer = RayAnswerer(
            FollowedFinder(calls, self._follower, Places(GATEWAY_REQUESTS)),
            DeployedWriter(generator, QuestionCheck(lambda: load_template(config.generate, folder))),
            k=config.retrieve.k,
            run=run,
            model=config.generate.model,
            numbered=config.generate.strategy == "together",
            config=config.serve,
        )
        self._config = config
        self._gate = Gate()
        self._metrics = RayMetrics()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Make the application; Serve calls this in the replica."""
        return create_app(self._answerer, self._config.serve, self._gate, self._metrics)

    def check_health(self) -> None:
        """Show what is to be watched: Serve calls this every few seconds."""
        self._metrics.set(SNAPSHOT_REFUSED, bool(self._follower.last_error))
        if self._inside:
            self._inside.check_health()

    async def reconfigure(self, user_config: Mapping[str, JsonValue]) -> None:
        """Serve what ``user_config`` names, once it is open; returns at once and never raises.

        While this runs, Serve sends the replica no requests, and if it raised, Serve would kill the replica.
        """
        self._follower.want_config(user_config)

    async def served(self) -> IndexSource | None:
        """Return what is served, None where that is not known yet."""
        return self._follower.served

    async def refuse_requests(self, drop: bool) -> int:
        """Refuse requests from now on; returns how many are being answered, after dropping them with ``drop``."""
        if drop:
            self._gate.drop()
        return self._gate.close()


class QuestionCheck:
    """Checks questions against the generator's limits in the Gateway; the tokenizer that this needs is loaded in a thread."""

    def __init__(self, load: Callable[[], PromptTemplate | None]) -> None:
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")
        self._prompts = pool.submit(load)
        pool.shutdown(wait=False)

    async def __call__(self, question: str, instruction: str) -> None:
        """Raise `InputError`, which names the limit, where a question with its instruction is too long."""
        try:
            prompts = await asyncio.shield(asyncio.wrap_future(self._prompts))
        except RagrayError:  # the Generator fails to start for the same reason, and reports it
            return
        if prompts:
            prompts.check(question, instruction)


class RayAnswerer(Orchestrator):
    """Answers through the Retriever and Generator deployments."""

    def __init__(self, finder: FollowedFinder, writer: AnswerWriter, *, config: ServeConfig, **settings: Any) -> None:
        """Take the other settings of `Orchestrator`."""
        admitted = AdmittedWriter(writer, config, most=GATEWAY_REQUESTS)
        super().__init__(finder, admitted, with_keys=bool(config.keys_file), spare=admitted.spare, **settings)
        self._found = finder

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Encode texts as questions are encoded."""
        embedded = await self._found.retriever.embed(texts, self._found.follower.served)
        current_caller().num_tokens += embedded.num_tokens
        return embedded

    async def rerank(self, query: str, passages: Sequence[Passage]) -> list[Hit]:
        """Order passages by the reranker's scores, best first."""
        return await self._found.retriever.rerank(query, passages, self._found.follower.served)

    async def models(self) -> RetrieverModels:
        """Name the models beside that which answers."""
        return await self._found.retriever.models(self._found.follower.served)

    def gauges(self) -> Mapping[Metric, float]:
        """Return nothing: the deployments export what is to be watched of them."""
        return {}

    async def health(self) -> Health:
        """Describe what is served; raises `ServingError` while a deployment has no replica that runs."""
        if reasons := await asyncio.to_thread(_not_running):
            raise ServingError("; ".join(reasons))
        await self.models()  # the Retriever answers
        return replace(health_of(self._found.follower), run=self._run)


@dataclass(frozen=True, slots=True)
class FollowedFinder:
    """The port `PassageFinder` over a Retriever, which searches together for requests that it gets one by one.

    Each search names the snapshot that is served when it begins.
    """

    retriever: RetrieverCalls
    follower: Follower
    places: Places

    async def find(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        """Return for every query its k best passages; raises `OverloadedError` where too many requests wait."""
        served = self.follower.served
        with self.places.hold():
            return list(await self.retriever.search(Lookup(tuple(queries), k, options, served)))


@dataclass(frozen=True, slots=True)
class DeployedWriter:
    """The port `AnswerWriter` over the Generator deployment; questions are checked here, before they travel."""

    generator: DeploymentHandle
    check_question: QuestionCheck

    async def check(self, question: str, instruction: str) -> None:
        """Raise `InputError` where a question is too long."""
        await self.check_question(question, instruction)

    async def generate(self, requests: Sequence[GenerationRequest], samplings: Sequence[Sampling]) -> list[Generation]:
        """Answer several requests."""
        sent = [partial(self.generator.generate.remote, *each) for each in zip(requests, samplings, strict=True)]
        return list(await asyncio.gather(*map(answer_of, sent)))

    async def stream(self, request: GenerationRequest, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece, then, last, the whole; one that has not begun is begun anew where its replica ends."""
        for pause_s in (*PAUSES_S, None):
            begun, pieces = False, self.generator.options(stream=True).stream.remote(request, sampling)
            try:
                with translate_ray_errors():
                    async for piece in pieces:
                        begun = True
                        yield piece
                    return
            except EndedError:
                if begun or pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
            except (asyncio.CancelledError, GeneratorExit):
                pieces.cancel()
                raise


def _not_running() -> list[str]:
    """Return which deployments of this application have no replica that runs, and why."""
    from ray import serve

    name = serve.get_replica_context().app_name
    return loading(serve.status().applications[name].deployments)
