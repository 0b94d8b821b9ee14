"""Answers on the port while the service cannot. In: connections. Out: JSON, or the service's answer once it has loaded.

It answers `/healthz` and `/readyz` itself. While the service loads, it sends the page, which says so, and other requests are
held and handed on when it has loaded; while it stops, they are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Scope

from ragray.config import ServeConfig
from ragray.serve.failure import RETRY_AFTER_S, Failure
from ragray.serve.guard import STOPPING, with_cors
from ragray.serve.page.routes import site
from ragray.serve.port import OURS, PROXY, claim_port, share
from ragray.serve.schema import AliveResponse

HEAD_BYTES = 1 << 16
HEAD_TIMEOUT_S = 10.0
HELD_BYTES = 1 << 18
"""Bytes of a held request's body that are read ahead; the rest stays with the client."""

LINGER_S = 2.0
RELEASE_S = 3.0
CHUNK_BYTES = 1 << 16
NO_HTTP = Failure(400, "invalid_request", "this is no request of HTTP/1.1", close=True)
END_OF_HEAD = b"\r\n\r\n"

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Placeholder:
    """Answers in a thread of its own, from `start` to `close`."""

    def __init__(self, listening: socket.socket, direct: Callable[[int], None], config: ServeConfig) -> None:
        self._listening = listening
        self._direct = direct
        self._config = config
        self._reason = "the service is starting"
        self._refusal: Failure | None = None
        self._given_up = False
        self._loaded = asyncio.Event()
        self._ended = asyncio.Event()
        self._handing_on = 0
        self._own: set[object] = (
            set()
        )  # addresses of this placeholder's own connections: where no proxy listens, they come back to it
        self.num_held = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="placeholder", daemon=True)
        self._thread.start()

    @classmethod
    def start(cls, config: ServeConfig) -> Placeholder | None:
        """Listen on the service's port; None where the system cannot share it (the port is free then).

        Raises:
            ServingError: the port is in use.
        """
        bound = claim_port(config)
        direct = share(bound)
        return cls(bound, direct, config) if direct else None

    @property
    def num_open(self) -> int:
        """Requests that came here and are not answered yet: held, or handed on."""
        return self.num_held + self._handing_on

    def wait_for(self, reason: str) -> None:
        """Name what is waited for, in the responses of `/readyz`."""
        self._reason = reason

    def hand_over(self) -> None:
        """Direct new connections to the service, which listens on the port too, and hand on the requests that are held."""
        self._reason = "the HTTP proxy is being started again"
        self._direct(PROXY)
        self._release()

    def refuse(self, failure: Failure = STOPPING) -> None:
        """Take new connections again and refuse their requests; requests that are held or were handed on are still answered."""
        self._refusal, self._reason = failure, failure.message
        self._direct(OURS)

    def close(self) -> None:
        """Refuse what is held, stop listening."""
        self._given_up = True
        self.refuse(self._refusal or STOPPING)
        self._release()
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._listening.close()

    def _release(self) -> None:
        """Let all held requests go on, and wait until none is held."""
        self._loop.call_soon_threadsafe(self._loaded.set)
        deadline = time.monotonic() + RELEASE_S
        while self.num_held and time.monotonic() < deadline:
            time.sleep(0.005)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listening, limit=HEAD_BYTES)
        await self._ended.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with _closing(writer):
                try:
                    async with asyncio.timeout(HEAD_TIMEOUT_S):
                        head = await reader.readuntil(END_OF_HEAD)
                    scope = read_head(head)
                except (ValueError, asyncio.LimitOverrunError):
                    await self._reply(writer, reader, read_head(b"GET / HTTP/1.1"), NO_HTTP.response())
                else:
                    await self._answer(head, scope, reader, writer)

    async def _answer(
        self, head: bytes, scope: Scope, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if scope["path"] == "/healthz":
            return await self._reply(writer, reader, scope, JSONResponse(AliveResponse().model_dump()))
        if self._refusal or writer.get_extra_info("peername") in self._own:
            return await self._reply(writer, reader, scope, self._failure().response())
        if not self._loaded.is_set() and (page := _page(scope)):
            return await self._reply(writer, reader, scope, page)
        if not self._loaded.is_set() and (
            scope["path"] == "/readyz" or self.num_held >= self._config.max_queued_requests
        ):
            return await self._reply(writer, reader, scope, self._failure().response())
        with self._counting_held():
            loaded, begun = await _held(reader, self._loaded, self._config.request_timeout_s)
            if loaded is None:
                return None
            if not loaded or self._given_up:
                return await self._reply(writer, reader, scope, self._failure().response())
            service = await asyncio.open_connection(*self._listening.getsockname()[:2])
            self._handing_on += 1  # before it counts as no longer held: `num_open` adds both numbers
        own = service[1].get_extra_info("sockname")
        self._own.add(own)
        try:
            return await _hand_on(alone(head) + begun, (reader, writer), service)
        finally:
            self._own.discard(own)
            self._handing_on -= 1

    def _failure(self) -> Failure:
        return self._refusal or Failure(503, "unavailable", self._reason, RETRY_AFTER_S, close=True)

    async def _reply(
        self, writer: asyncio.StreamWriter, reader: asyncio.StreamReader, scope: Scope, response: ASGIApp
    ) -> None:
        """Write a response and end the connection, once the client has read it."""

        async def send(message: Message) -> None:
            writer.write(encode(message, has_body=scope["method"] != "HEAD"))

        await with_cors(response, self._config.cors_origins)(scope, _nothing, send)
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(LINGER_S):
            while await reader.read(CHUNK_BYTES):
                pass

    @contextlib.contextmanager
    def _counting_held(self) -> Iterator[None]:
        self.num_held += 1
        try:
            yield
        finally:
            self.num_held -= 1


def _page(scope: Scope) -> ASGIApp | None:
    """Return the page or a file of it as a response, None where something else is asked for."""
    found = site().find(scope["path"].removeprefix("/")) if scope["method"] in ("GET", "HEAD") else None
    return found[0].response(Headers(scope=scope), found[1]) if found else None


def read_head(head: bytes) -> Scope:
    """Read a request's first line and headers; raises `ValueError` if it is no HTTP."""
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, target, version = first.split(" ")
    if not version.startswith("HTTP/"):
        raise ValueError(f"'{version}' is no version of HTTP")
    pairs = [line.partition(":") for line in lines]
    headers = [(name.strip().lower().encode("latin-1"), value.strip().encode("latin-1")) for name, _, value in pairs]
    return {"type": "http", "method": method, "path": target.partition("?")[0], "headers": headers}


def alone(head: bytes) -> bytes:
    """Rewrite a request's head so that its connection ends after one response."""
    lines = head.removesuffix(END_OF_HEAD).split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].strip().lower() not in (b"connection", b"keep-alive")]
    return b"\r\n".join([*kept, b"Connection: close"]) + END_OF_HEAD


def encode(message: Message, *, has_body: bool) -> bytes:
    """Write a message of ASGI as HTTP."""
    if message["type"] == "http.response.body":
        return bytes(message.get("body", b"")) if has_body else b""
    status = HTTPStatus(message["status"])
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    names = Headers(raw=message["headers"])
    lines += [name + b": " + value for name, value in message["headers"]]
    return b"\r\n".join(lines if "connection" in names else [*lines, b"connection: close"]) + END_OF_HEAD


async def _held(reader: asyncio.StreamReader, loaded: asyncio.Event, timeout_s: float) -> tuple[bool | None, bytearray]:
    """Hold a request; returns whether the service has loaded in time, None if the client left, and the body so far."""
    begun = bytearray()

    async def read_on() -> None:
        while len(begun) < HELD_BYTES and (chunk := await reader.read(CHUNK_BYTES)):
            begun.extend(chunk)
        if len(begun) >= HELD_BYTES:
            await asyncio.Event().wait()

    waiting = asyncio.ensure_future(loaded.wait())
    reading = asyncio.ensure_future(read_on())
    try:
        done, _ = await asyncio.wait((waiting, reading), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    return (True if waiting in done else None if reading in done else False), begun


async def _hand_on(begun: bytes, client: Ends, service: Ends) -> None:
    """Copy bytes between a client and the service in both directions until one of them closes."""
    async with _closing(service[1]):
        service[1].write(begun)
        there = asyncio.ensure_future(_copy(client[0], service[1]))
        back = asyncio.ensure_future(_copy(service[0], client[1]))
        try:
            await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(CHUNK_BYTES):
        sink.write(chunk)
        await sink.drain()


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
