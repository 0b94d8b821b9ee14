"""Streams whose reader leaves or never reads: what is behind them ends, and nothing of them stays."""

import asyncio
import json
from collections.abc import AsyncGenerator

from starlette.types import Message

from ragray.config import ServeConfig
from ragray.errors import ServingError
from ragray.generate.orchestrator import QuestionRequest, ServedAnswer
from ragray.serve.app import create_app
from ragray.serve.guard import Gate
from ragray.serve.stream import SEND_GRACE_S, EventStream
from tests.serve.test_app import Failing
from tests.serve.test_guard import scope_of

STREAMS = 500
ASK = json.dumps({"question": "who?", "stream": True}).encode()


class Endless(Failing):
    """An answerer that writes for ever, and knows how many of its streams are open."""

    def __init__(self) -> None:
        super().__init__(ServingError("not reached"))
        self.num_open = 0

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

    def __init__(self) -> None:
        self._request: Message | None = {"type": "http.request", "body": ASK, "more_body": False}
        self._gone = asyncio.Event()

    async def receive(self) -> Message:
        request, self._request = self._request, None
        if request is None:
            await self._gone.wait()
        return request or {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self._gone.set()


def test_streams_that_are_abandoned_leave_nothing_behind() -> None:
    async def scenario() -> None:
        answerer, gate = Endless(), Gate()
        app = create_app(answerer, ServeConfig(), gate)
        before = len(asyncio.all_tasks())
        clients = [Leaving() for _ in range(STREAMS)]
        await asyncio.gather(*(app(scope_of("/v1/answer"), client.receive, client.send) for client in clients))
        assert (answerer.num_open, gate.num_open, len(asyncio.all_tasks())) == (0, 0, before)

    asyncio.run(scenario())


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
