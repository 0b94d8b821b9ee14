"""The Retriever deployment, as a Gateway calls it. In: its handle. Out: what its replicas answer, and what they hold open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ragray.cluster.serving.retrieving import SMALL, Found, Lookup, Source
from ragray.errors import OverloadedError, ServingError
from ragray.retrieve.retriever import Embedded, RetrieverModels
from ragray.retrieve.shelf import IndexSource
from ragray.serve.load.gathering import Gatherer
from ragray.types import Hit, Passage

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle, DeploymentResponse

T = TypeVar("T")

PAUSES_S = (0.1, 0.5, 2.0)
"""Pauses before a request is sent again whose replica ended; Serve itself holds it until another one runs."""

CALL_LOOKUPS = 16
"""Lookups wait for the last call of their Gateway to end, unless they are so many: then another replica may answer them."""

ASK_TIMEOUT_S = 10.0
PREPARE_TIMEOUT_S = 900.0
"""A snapshot that is not open everywhere by then is tried again."""


def remote(retriever: DeploymentHandle) -> tuple[RemoteRetriever, ReplicaKeeper, None]:
    """Return what asks one of the replicas, and what talks to all of them; what they serve is not known yet."""
    return RemoteRetriever(retriever), ReplicaKeeper(retriever), None


class RemoteRetriever:
    """The port `RetrieverCalls` over the deployment: each call goes to one of its replicas.

    A call between processes costs as much as some searches, so that one takes the lookups that have come while others were running.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        self.handle = handle
        self._gather = Gatherer(self._search_all, most=CALL_LOOKUPS, overflowing=True)

    async def search(self, lookup: Lookup) -> Found:
        """Search for the queries of one request."""
        if len(lookup.queries) <= SMALL:
            return await self._gather(lookup)
        [found] = await self._search_all([lookup])
        if isinstance(found, Exception):
            raise found
        return found

    async def _search_all(self, lookups: Sequence[Lookup]) -> list[Found | Exception]:
        return await answer_of(lambda: self.handle.search_all.remote(lookups))

    async def embed(self, texts: Sequence[str], source: Source) -> Embedded:
        """Encode texts as questions are encoded."""
        return await answer_of(lambda: self.handle.embed.remote(texts, source))

    async def rerank(self, query: str, passages: Sequence[Passage], source: Source) -> list[Hit]:
        """Order passages by the reranker's scores, best first."""
        return await answer_of(lambda: self.handle.rerank.remote(query, passages, source))

    async def models(self, source: Source) -> RetrieverModels:
        """Name the models that are loaded."""
        return await answer_of(lambda: self.handle.models.remote(source))


@dataclass(frozen=True, slots=True)
class ReplicaKeeper:
    """The port `Keeper` over all replicas of the deployment; to be called outside of event loops."""

    handle: DeploymentHandle

    def held(self) -> IndexSource | None:
        """Return what one of the replicas searched last, None where none runs yet."""
        return next((each for each in self._all("held", ASK_TIMEOUT_S) if isinstance(each, IndexSource)), None)

    def prepare(self, source: IndexSource) -> None:
        """Open and check a snapshot in every replica; raises what the first raised that cannot serve it."""
        _raise_first(self._all("prepare", PREPARE_TIMEOUT_S, source))

    def keep(self, source: IndexSource) -> None:
        """Let go of all snapshots but one in every replica that runs."""
        self._all("keep", ASK_TIMEOUT_S, source)

    def _all(self, method: str, timeout_s: float, *args: IndexSource) -> list[Any]:
        """Return what every running replica answers, an exception where one fails, or where none runs."""
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        try:
            asked = self.handle.broadcast(method, *args)
            found: list[Any] = asked.results(timeout_s=timeout_s, return_exceptions=True)
            return found
        except (RayError, RayServeException, TimeoutError) as err:
            return [err]


def _raise_first(found: Sequence[Any]) -> None:
    for each in found:
        if isinstance(each, TimeoutError):
            raise ServingError(f"the snapshot was not open after {PREPARE_TIMEOUT_S:g} s; is the storage reachable?")
        if isinstance(each, Exception):
            with translate_ray_errors():
                raise each


class EndedError(ServingError):
    """The replica that worked on a request ended; the request may be sent again."""


async def answer_of(send: Callable[[], DeploymentResponse[T]]) -> T:
    """Send a request and wait for its answer; where the replica ends meanwhile, send it again. Cancelling this cancels the request.

    Raises:
        ServingError: the replicas of several attempts ended, or none can be started.
    """
    for pause_s in PAUSES_S:
        with contextlib.suppress(EndedError):
            return await _answer(send())
        await asyncio.sleep(pause_s)
    return await _answer(send())


async def _answer(response: DeploymentResponse[T]) -> T:
    with translate_ray_errors():
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
    except RequestCancelledError as err:
        raise ServingError("this request was cancelled; try again in a second") from err
    except (DeploymentUnavailableError, ReplicaUnavailableError, RayError) as err:
        raise EndedError("the process that worked on this request ended; try again in a second") from err
