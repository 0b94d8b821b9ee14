"""The ingress on Ray Serve. In: handles of Retriever and Generator. Out: an `Answerer` over them, behind HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ragray.cluster.serving.metrics import RayMetrics
from ragray.cluster.serving.service import loading
from ragray.config import Config, ServeConfig
from ragray.errors import OverloadedError, RagrayError, ServingError
from ragray.generate.engine import Generation, GenerationRequest, Piece, Sampling
from ragray.generate.load import load_template
from ragray.generate.orchestrator import Orchestrator
from ragray.generate.template import PromptTemplate
from ragray.retrieve.caller import current_caller
from ragray.retrieve.retriever import AS_SET, Embedded, RetrieverModels, SearchOptions
from ragray.serve.answerer import Health
from ragray.serve.app import create_app
from ragray.serve.guard import Gate
from ragray.serve.load.admitted import AdmittedWriter
from ragray.serve.metrics.catalogue import Metric
from ragray.types import Hit, Passage, RetrievalResult

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve.handle import DeploymentHandle, DeploymentResponse

T = TypeVar("T")

GATEWAY_REQUESTS = 1000
"""Requests that a Gateway holds. It only waits for the deployments behind it, and those refuse what is too much."""


class Gateway:
    """The ingress deployment: the HTTP interface over `RayAnswerer`. ``folder`` is that of the run, "" without one."""

    def __init__(
        self, retriever: DeploymentHandle, generator: DeploymentHandle, config: Config, run: str, folder: str
    ) -> None:
        check = QuestionCheck(lambda: load_template(config.generate, Path(folder) if folder else None))
        self._answerer = RayAnswerer(
            retriever,
            generator,
            check,
            k=config.retrieve.k,
            run=run,
            model=config.generate.model,
            numbered=config.generate.strategy == "together",
            config=config.serve,
        )
        self._config = config
        self._gate = Gate()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Make the application; Serve calls this in the replica."""
        return create_app(self._answerer, self._config.serve, self._gate, RayMetrics())

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

    def __init__(
        self,
        retriever: DeploymentHandle,
        generator: DeploymentHandle,
        check: QuestionCheck,
        *,
        k: int,
        run: str,
        model: str,
        numbered: bool,
        config: ServeConfig,
    ) -> None:
        writer = AdmittedWriter(DeployedWriter(generator, check), config, most=GATEWAY_REQUESTS)
        how = {"numbered": numbered, "with_keys": bool(config.keys_file)}
        super().__init__(DeployedFinder(retriever), writer, k=k, run=run, model=model, spare=writer.spare, **how)
        self._retriever = retriever

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Encode texts as questions are encoded."""
        with translate_ray_errors():
            embedded: Embedded = await _result(self._retriever.embed.remote(texts))
        current_caller().num_tokens += embedded.num_tokens
        return embedded

    async def rerank(self, query: str, passages: Sequence[Passage]) -> list[Hit]:
        """Order passages by the reranker's scores, best first."""
        with translate_ray_errors():
            return await _result(self._retriever.rerank.remote(query, passages))

    async def models(self) -> RetrieverModels:
        """Name the models beside that which answers."""
        with translate_ray_errors():
            return await _result(self._retriever.models.remote())

    def gauges(self) -> Mapping[Metric, float]:
        """Return nothing: the deployments export what is to be watched of them."""
        return {}

    async def health(self) -> Health:
        """Describe what is served; raises `ServingError` while a deployment has no replica that runs."""
        if reasons := await asyncio.to_thread(_not_running):
            raise ServingError("; ".join(reasons))
        with translate_ray_errors():
            state: Health = await _result(self._retriever.health.remote())
        return replace(state, run=self._run)


@dataclass(frozen=True, slots=True)
class DeployedFinder:
    """The port `PassageFinder` over the Retriever deployment, which batches the queries that it gets one by one."""

    retriever: DeploymentHandle

    async def find(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        """Return for every query its k best passages."""
        with translate_ray_errors():
            if len(queries) == 1:
                return [await _result(self.retriever.search.remote(queries[0], k, options))]
            return await _result(self.retriever.search_many.remote(list(queries), k, options))


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
        with translate_ray_errors():
            answers = map(self.generator.generate.remote, requests, samplings)
            return list(await asyncio.gather(*map(_result, answers)))

    async def stream(self, request: GenerationRequest, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece, then, last, the whole."""
        pieces = self.generator.options(stream=True).stream.remote(request, sampling)
        try:
            with translate_ray_errors():
                async for piece in pieces:
                    yield piece
        except (asyncio.CancelledError, GeneratorExit):
            pieces.cancel()
            raise


async def _result(response: DeploymentResponse[T]) -> T:
    """Wait for a deployment's answer; cancelling this cancels the request."""
    try:
        result: T = await response
        return result
    except asyncio.CancelledError:
        response.cancel()
        raise


@contextlib.contextmanager
def translate_ray_errors() -> Iterator[None]:
    """Turn errors of Ray and Serve into errors of ragray; an error that a replica raised comes out as it was raised there."""
    from ray.exceptions import RayError, RayTaskError
    from ray.serve.exceptions import (
        BackPressureError,
        DeploymentUnavailableError,
        ReplicaUnavailableError,
        RequestCancelledError,
    )

    try:
        yield
    except BackPressureError as err:
        raise OverloadedError("as many requests are waiting as may wait; try again in a second") from err
    except RayTaskError as err:
        raise err.cause from err
    except (DeploymentUnavailableError, ReplicaUnavailableError, RequestCancelledError, RayError) as err:
        raise ServingError("the process that worked on this request ended; try again in a second") from err


def _not_running() -> list[str]:
    """Return which deployments of this application have no replica that runs, and why."""
    from ray import serve

    name = serve.get_replica_context().app_name
    return loading(serve.status().applications[name].deployments)
