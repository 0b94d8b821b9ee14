"""What every request passes before a route. In: a request. Out: the route's response, or a refusal as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragray.errors import ServingError
from ragray.retrieve.caller import current_caller
from ragray.serve.failure import Failure, failure_of

ALWAYS_ANSWERED = ("/healthz", "/readyz")
"""Paths that a service answers also while it stops."""

LIMITS_HEADER = "x-ragray-limits"
DEGRADED_HEADER = "x-ragray-degraded"
REQUEST_ID = "x-request-id"
EXPOSED_HEADERS = (
    *("Retry-After", "X-Request-ID", "X-Ragray-Snapshot", "X-Ragray-Run", "Server-Timing", DEGRADED_HEADER),
    *(f"X-RateLimit-{fact}-{what}" for what in ("Requests", "Tokens") for fact in ("Limit", "Remaining", "Reset")),
)
PREFLIGHT_S = 600
STOPPING = Failure(503, "unavailable", "the service is stopping; try again in a few seconds", 5, close=True)

Responds = Mapping[str, Callable[[Failure], Response]]
"""How the errors of a path are written, where that is not ragray's own way."""

OWN_WAY: Responds = {}


def own_path(scope: Scope) -> str:
    """Return the path of a request below the prefix that the service has (Serve's ``route_prefix``)."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if path.startswith(f"{root}/") else path


def respond(responds: Responds, scope: Scope, failure: Failure) -> Response:
    """Return the response of a failure, in the way of the path that was asked."""
    return responds.get(own_path(scope), Failure.response)(failure)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the service that the proxy in front of it must know too; ``max_body_bytes`` 0: no limit."""

    max_body_bytes: int = 0
    cors_origins: tuple[str, ...] = ()

    def header(self) -> str:
        """Write it as the value of a header."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, header: str) -> Limits:
        """Read what `header` wrote."""
        values = json.loads(header)
        return cls(values["max_body_bytes"], tuple(values["cors_origins"]))


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Let pages of these origins read every response of an application; without origins it is returned as it is."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST", "OPTIONS"),
        allow_headers=("*",),
        expose_headers=EXPOSED_HEADERS,
        max_age=PREFLIGHT_S,
    )


class BodyLimit:
    """Answers 413 to a body of more than ``max_bytes``: by its declared length before it is read, else while it is.

    The body of a refused request is read and dropped for ``linger_s``: a client that writes all of it before it reads
    would otherwise find its connection reset, and not the response.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        *,
        linger_s: float = 0,
        origins: Sequence[str] = (),
        responds: Responds = OWN_WAY,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._responds = responds
        self._linger_s = linger_s
        self._refuse = with_cors(self._refusal, origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or not self._max_bytes:
            await self._app(scope, receive, send)
        elif declared_bytes(scope) > self._max_bytes:
            await self._refuse(scope, receive, send)
        else:
            await self._count(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Counted(self._max_bytes, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception:
            if not exchange.refused:
                raise
        if exchange.refused:
            await self._refuse(scope, receive, send)

    async def _refusal(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = respond(self._responds, scope, too_large(self._max_bytes))
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._linger_s):
                while self._linger_s and (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Counted:
    """One exchange whose body is counted. Past the limit the application is told that its client left; what it sends is dropped."""

    def __init__(self, max_bytes: int, receive: Receive, send: Send) -> None:
        self._left = max_bytes
        self._receive = receive
        self._send = send
        self._started = False
        self.refused = False

    async def receive(self) -> Message:
        message = {"type": "http.disconnect"} if self.refused else await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0 and not self._started:
                self.refused = True
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if not self.refused:
            self._started = True
            await self._send(message)


def declared_bytes(scope: Scope) -> int:
    """Return a request's Content-Length, 0 without one."""
    declared = Headers(scope=scope).get("content-length", "")
    return int(declared) if declared.isascii() and declared.isdigit() else 0


def too_large(max_bytes: int) -> Failure:
    """Describe a body that is larger than allowed."""
    message = f"body: is larger than the {max_bytes} bytes that are allowed (serve.max_body_bytes)"
    return Failure(413, "too_large", message, close=True)


class Gate:
    """Counts the requests that are being answered; once it is closed, new ones are refused."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = False

    @property
    def num_open(self) -> int:
        """Requests that are being answered."""
        return len(self._tasks)

    def close(self) -> int:
        """Refuse requests from now on; returns how many are still being answered."""
        self.closed = True
        return self.num_open

    def drop(self) -> None:
        """Stop answering those that are open."""
        for task in self._tasks:
            task.cancel()

    async def run(self, answering: Coroutine[None, None, None]) -> None:
        """Answer, and count it meanwhile; raises `ServingError` where the answer is dropped."""
        task = asyncio.create_task(answering)
        self._tasks.add(task)
        try:
            await task
        except asyncio.CancelledError:
            if (waiting := asyncio.current_task()) and waiting.cancelling():
                raise
            raise ServingError("the service stopped before this was answered") from None
        finally:
            self._tasks.discard(task)


class Gated:
    """Passes requests through a gate, puts the limits into every response's headers, and turns what is raised into a response.

    A request that brings no id gets one, which the response names. Ray's proxy gives and names the ids of all that pass it.
    """

    def __init__(self, app: ASGIApp, gate: Gate, limits: Limits, responds: Responds = OWN_WAY) -> None:
        self._app = app
        self._gate = gate
        self._responds = responds
        self._limits = limits.header()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, named = False, REQUEST_ID in Headers(scope=scope)

        async def announce(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers[LIMITS_HEADER] = self._limits
                if degraded := current_caller().degraded:
                    headers[DEGRADED_HEADER] = degraded
                if not named:
                    headers[REQUEST_ID] = uuid.uuid4().hex
            await send(message)

        try:
            if scope["path"].endswith(ALWAYS_ANSWERED):
                await self._app(scope, receive, announce)
            elif self._gate.closed:
                await respond(self._responds, scope, STOPPING)(scope, receive, announce)
            else:
                await self._gate.run(_call(self._app, scope, receive, announce))
        except Exception as err:
            if started:
                raise
            await respond(self._responds, scope, failure_of(err))(scope, receive, announce)


async def _call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)
