"""Middleware of Ray Serve's HTTP proxy. In: what the proxy answers. Out: the same, with the proxy's own errors as JSON.

Ray Serve builds it into the proxy where ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names `middlewares` when Ray starts.
It refuses bodies that are too large before the proxy holds them in memory, and answers while no Gateway runs.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragray.serve.failure import RETRY_AFTER_S, Failure
from ragray.serve.guard import LIMITS_HEADER, BodyLimit, Limits, with_cors
from ragray.serve.schema import AliveResponse
from ragray.serve.stream import event

PROXY_PATHS = "/-/"
"""Paths of Ray's proxy itself begin so; they are passed through."""

LINGER_S = 30.0
"""Seconds for which the rest of a refused body is read and dropped."""

LOST = Failure(
    503, "unavailable", "the process that worked on this request ended; try again in a second", RETRY_AFTER_S
)
LOADING = Failure(503, "unavailable", "no application answers at this path yet; try again in a second", RETRY_AFTER_S)
FULL = Failure(429, "overloaded", "as many requests are waiting as may wait; try again in a second", RETRY_AFTER_S)
LATE = Failure(504, "timeout", "not answered in time; try again, or ask for less")
OF_THE_PROXY = {404: LOADING, 408: LATE, 429: FULL, 500: LOST, 503: LOST}


def middlewares() -> list[Middleware]:
    """Return what Ray Serve puts before its proxy."""
    return [Middleware(Edge)]


class Edge:
    """Middleware in front of the proxy. Limits are those that the Gateway's last response named; before the first there are none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._limits = Limits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        app = self._app
        if scope["type"] == "http" and not scope["path"].startswith(PROXY_PATHS):
            limits = self._limits
            app = BodyLimit(self._exchange, limits.max_body_bytes, linger_s=LINGER_S, origins=limits.cors_origins)
        await app(scope, receive, send)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, exchange = _Body(receive), _Exchange(send)
        await self._app({**scope}, body.receive, exchange.send)
        if exchange.failure() is LOST and not body.left:  # its Gateway ended: another one answers
            exchange = _Exchange(send)
            await self._app({**scope}, body.once_more(), exchange.send)
        self._limits = exchange.limits or self._limits
        if failure := exchange.failure():
            alive = failure.status in (500, 503) and scope["path"].endswith("/healthz") and _reads(scope)
            response = JSONResponse(AliveResponse().model_dump()) if alive else failure.response()
            await with_cors(response, self._limits.cors_origins)(scope, receive, send)
        elif exchange.cut_off():
            error = event(LOST.body(), name="error").encode()
            await send({"type": "http.response.body", "body": error, "more_body": False})


class _Exchange:
    """Watches one response: whether it is the application's or the proxy's own, and whether it came to its end."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._failure: Failure | None = LOST
        self._is_stream = self._ended = False
        self.limits: Limits | None = None

    async def send(self, message: Message) -> None:
        """Pass a message on, unless it belongs to an error of the proxy itself."""
        if message["type"] == "http.response.start":
            self._begin(message)
        elif message["type"] == "http.response.body":
            self._ended = not message.get("more_body", False)
        if self._failure is None:
            await self._send(message)

    def failure(self) -> Failure | None:
        """Return what to answer where the application did not answer; None where it did."""
        return self._failure

    def cut_off(self) -> bool:
        """Return whether a stream of events began and did not come to its end."""
        return self._is_stream and not self._ended

    def _begin(self, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        kind = headers.get("content-type", "")
        self._is_stream = kind.startswith("text/event-stream")
        if header := headers.get(LIMITS_HEADER):
            self.limits = Limits.parse(header)
            del headers[LIMITS_HEADER]
        of_the_proxy = message["status"] >= 400 and kind.startswith("text/plain")
        self._failure = OF_THE_PROXY.get(message["status"]) if of_the_proxy else None


class _Body:
    """Keeps what is received of a request, which the proxy holds in memory anyway, so that it can be received once more."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self.left = False
        """Whether the client has left."""

    async def receive(self) -> Message:
        """Receive a message, and keep it."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._kept.append(message)
        else:
            self.left = True
        return message

    def once_more(self) -> Receive:
        """Return what receives all that was kept, then what is still to come."""
        kept = iter(self._kept)

        async def receive() -> Message:
            message = next(kept, None)
            return await self._receive() if message is None else message

        return receive


def _reads(scope: Scope) -> bool:
    return scope["method"] in ("GET", "HEAD")
