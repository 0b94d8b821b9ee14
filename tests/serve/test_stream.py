"""Streams whose reader leaves or never reads: what is behind them ends, and nothing of them stays."""

import asyncio
import gc
import json
import tracemalloc
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

import pytest
from starlette.types import ASGIApp, Message

from ragray.config import ServeConfig
from ragray.errors import ServingError
from ragray.generate.orchestrator import NOTHING_FOUND, Found, QuestionRequest, ServedAnswer
from ragray.serve.app import create_app
from ragray.serve.guard import Gate
from ragray.serve.stream import SEND_GRACE_S, EventStream
from tests.serve.test_app import Failing
from tests.serve.test_guard import scope_of

STREAMS = 500
KEPT_BYTES = 50_000
"""What may be held after many requests: a few hundred bytes for each would be more."""

ROUTES: dict[str, dict[str, object]] = {
    "/v1/answer": {"question": "who?"},
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "who?"}]},
    "/v1/responses": {"model": "m", "input": "who?"},
}


class Endless(Failing):
    """An answerer that writes for ever, and knows how many of its streams are open."""

    model, run, numbered = "m", "", False

    def __init__(self) -> None:
        super().__init__(ServingError("not reached"))
        self.num_open = 0

    async def find(self, request: QuestionRequest) -> Found:
        return Found(NOTHING_FOUND, 0)

    def write(self, request: QuestionRequest, found: Found) -> AsyncGenerator[str | ServedAnswer, None]:
        return self.stream(request)

    async def stream(self, request: QuestionRequest) -> AsyncGenerator[str | ServedAnswer, None]:
        self.num_open += 1
        try:
            while True:
                yield "word "
                await asyncio.sleep(0)
        finally:
            self.num_open -= 1


class Leaving:
    """A client that leaves at the first piece of its answer."""

    def __init__(self, route: str) -> None:
        body = json.dumps({**ROUTES[route], "stream": True}).encode()
        self._request: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._gone = asyncio.Event()
        self.status = 0

    async def receive(self) -> Message:
        request, self._request = self._request, None
        if request is None:
            await self._gone.wait()
        return request or {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self._gone.set()
        else:
            self.status = message["status"]


async def abandon(app: ASGIApp, route: str, number: int) -> None:
    clients = [Leaving(route) for _ in range(number)]
    await asyncio.gather(*(app(scope_of(route), client.receive, client.send) for client in clients))
    assert {client.status for client in clients} == {200}


@pytest.mark.parametrize("route", list(ROUTES))
def test_streams_that_are_abandoned_leave_nothing_behind(route: str) -> None:
    async def scenario() -> None:
        answerer, gate, before = Endless(), Gate(), len(asyncio.all_tasks())
        await abandon(create_app(answerer, ServeConfig(), gate), route, STREAMS)
        assert (answerer.num_open, gate.num_open, len(asyncio.all_tasks())) == (0, 0, before)

    asyncio.run(scenario())


def test_memory_after_abandoned_streams_is_what_it_was_after_as_many_before_them() -> None:
    async def scenario() -> int:
        app, held = create_app(Endless(), ServeConfig()), []
        for _ in range(2):
            await abandon(app, "/v1/responses", 150)
            held.append(held_bytes())
        return held[1] - held[0]

    with tracing():
        assert asyncio.run(scenario()) < KEPT_BYTES


def test_bodies_without_end_are_refused_and_never_held() -> None:
    chunk = bytes(1 << 16)

    async def post(app: ASGIApp) -> int:
        statuses: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": chunk, "more_body": True}

        async def send(message: Message) -> None:
            statuses.extend([message["status"]] if message["type"] == "http.response.start" else [])

        await app(scope_of("/v1/answer"), receive, send)
        return statuses[0]

    async def scenario() -> None:
        app, limit = create_app(Endless(), ServeConfig(max_body_bytes=1 << 20)), 1 << 20
        assert await post(app) == 413
        memory = held_bytes()
        tracemalloc.reset_peak()
        assert {await post(app) for _ in range(20)} == {413}
        assert tracemalloc.get_traced_memory()[1] - memory < 4 * limit
        assert held_bytes() - memory < KEPT_BYTES

    with tracing():
        asyncio.run(scenario())


@contextmanager
def tracing() -> Iterator[None]:
    """Count what is allocated within the block."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def held_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_a_reader_that_never_reads_is_given_up_after_the_deadline_and_the_writing_is_stopped() -> None:
    async def scenario() -> None:
        answerer = Endless()
        pieces = answerer.stream(QuestionRequest("who?"))
        first = await anext(pieces)
        sent: list[Message] = []

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)
            if len(sent) > 2:
                await asyncio.Event().wait()  # the socket is full, and stays so

        deadline = asyncio.get_running_loop().time() - SEND_GRACE_S + 0.1
        stream = EventStream(first, pieces, deadline=deadline)
        await stream(scope_of("/v1/answer", method="POST"), receive, send)
        assert answerer.num_open == 0
        assert len(sent) == 3  # headers, the first piece, and what did not fit

    asyncio.run(scenario())
