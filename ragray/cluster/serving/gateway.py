"""The HTTP door on Ray Serve. In: handles of Retriever and Generator. Out: an `Answerer` behind HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from ragray.cluster.serving.service import loading
from ragray.config import Config
from ragray.errors import OverloadedError, RagrayError, ServingError
from ragray.generate.generator import Generation, Prompt
from ragray.generate.load import load_prompts
from ragray.generate.pipeline import to_answer
from ragray.generate.prompt import PromptEncoder
from ragray.serve.answerer import Found, Health, ServedAnswer
from ragray.serve.app import create_app
from ragray.serve.guard import Gate

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve.handle import DeploymentHandle, DeploymentResponse

T = TypeVar("T")

NOTHING_FOUND = Found("", ())


class Gateway:
    """The ingress deployment: the HTTP interface over `RayAnswerer`. ``folder`` is that of the run, "" without one."""

    def __init__(
        self, retriever: DeploymentHandle, generator: DeploymentHandle, config: Config, run: str, folder: str
    ) -> None:
        check = QuestionCheck(lambda: load_prompts(config.generate, Path(folder) if folder else None))
        self._answerer = RayAnswerer(retriever, generator, k=config.retrieve.k, run=run, check=check)
        self._config = config
        self._gate = Gate()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Make the application; Serve calls this in the replica."""
        return create_app(self._answerer, self._config.serve, self._gate)

    async def refuse_requests(self, drop: bool) -> int:
        """Refuse requests from now on; returns how many are being answered, after dropping them with ``drop``."""
        if drop:
            self._gate.drop()
        return self._gate.close()


class QuestionCheck:
    """Holds questions against the generator's limits at the door; what that needs, the tokenizer, is loaded meanwhile."""

    def __init__(self, load: Callable[[], PromptEncoder | None]) -> None:
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")
        self._prompts = pool.submit(load)
        pool.shutdown(wait=False)

    async def __call__(self, question: str) -> None:
        """Raise `InputError`, which names the limit, where a question is too long."""
        try:
            prompts = await asyncio.shield(asyncio.wrap_future(self._prompts))
        except RagrayError:  # the Generator cannot start either, and says why
            return
        if prompts:
            prompts.check(question)


class RayAnswerer:
    """Answers through the Retriever and Generator deployments."""

    def __init__(
        self,
        retriever: DeploymentHandle,
        generator: DeploymentHandle,
        *,
        k: int,
        run: str,
        check: Callable[[str], Awaitable[None]],
    ) -> None:
        self._retriever = retriever
        self._generator = generator
        self._k = k
        self._run = run
        self._check = check

    async def search(self, query: str, *, k: int | None) -> Found:
        """Return the k best passages of a query."""
        with plain_errors():
            return await _result(self._retriever.search.remote(query, k or self._k))

    async def answer(self, question: str, *, k: int | None, closed_book: bool) -> ServedAnswer:
        """Answer a question."""
        prompt, snapshot, retrieve_s = await self._prompt(question, k, closed_book)
        started = monotonic()
        with plain_errors():
            generation: Generation = await _result(self._generator.generate.remote(prompt))
        return self._served(prompt, generation, snapshot, retrieve_s, started)

    async def stream(
        self, question: str, *, k: int | None, closed_book: bool
    ) -> AsyncGenerator[str | ServedAnswer, None]:
        """Yield an answer piece by piece, then, last, the whole."""
        prompt, snapshot, retrieve_s = await self._prompt(question, k, closed_book)
        started = monotonic()
        pieces = self._generator.options(stream=True).stream.remote(prompt)
        try:
            with plain_errors():
                async for piece in pieces:
                    if isinstance(piece, Generation):
                        yield self._served(prompt, piece, snapshot, retrieve_s, started)
                    else:
                        yield piece
        except (asyncio.CancelledError, GeneratorExit):
            pieces.cancel()
            raise

    async def health(self) -> Health:
        """Describe what is served; raises `ServingError` while a deployment has no replica that runs."""
        if reasons := await asyncio.to_thread(_not_running):
            raise ServingError("; ".join(reasons))
        with plain_errors():
            state: Health = await _result(self._retriever.health.remote())
        return replace(state, run=self._run)

    async def _prompt(self, question: str, k: int | None, closed_book: bool) -> tuple[Prompt, str, float]:
        started = monotonic()
        await self._check(question)
        found = NOTHING_FOUND if closed_book else await self.search(question, k=k)
        return Prompt(question, found.hits), found.snapshot, monotonic() - started

    def _served(
        self, prompt: Prompt, generation: Generation, snapshot: str, retrieve_s: float, started: float
    ) -> ServedAnswer:
        return ServedAnswer(to_answer(prompt, generation, snapshot), self._run, retrieve_s, monotonic() - started)


async def _result(response: DeploymentResponse[T]) -> T:
    """Wait for a deployment's answer; who stops waiting also takes the request back."""
    try:
        result: T = await response
        return result
    except asyncio.CancelledError:
        response.cancel()
        raise


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what Ray and Serve raise into errors of ragray; what a replica raised comes out as it was raised there."""
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
    """Ask Serve which deployments of this application have no replica that runs, and why."""
    from ray import serve

    name = serve.get_replica_context().app_name
    return loading(serve.status().applications[name].deployments)
