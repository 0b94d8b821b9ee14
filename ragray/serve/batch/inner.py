"""A request within a request. In: the application, the outer request, a path and a body. Out: the response, as if it had come alone.

It passes everything that a request from outside passes: the access log, the door with its key, limits. It is sent with the outer
request's headers, so that it can do nothing that its sender cannot.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

COPIED = ("type", "asgi", "http_version", "scheme", "server", "client", "root_path")
OF_THE_BODY = (
    b"content-length",
    b"content-type",
    b"content-encoding",
    b"transfer-encoding",
    b"x-request-id",
    b"expect",
)
"""Headers that are the outer request's alone; each inner one gets an id of its own."""


@dataclass(slots=True)
class InnerResponse:
    """A response that is collected."""

    status: int = 0
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""


async def post(app: ASGIApp, outer: Scope, path: str, body: bytes) -> InnerResponse:
    """Send JSON to a path of an application; cancelling this is the client's leaving."""
    collected = InnerResponse()
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await asyncio.Event().wait()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            collected.status, collected.headers = message["status"], Headers(raw=message["headers"])
        elif message["type"] == "http.response.body":
            collected.body += message.get("body", b"")

    await app(_scope(outer, path, body), receive, send)
    return collected


def _scope(outer: Scope, path: str, body: bytes) -> Scope:
    whole = str(outer.get("root_path", "")).rstrip("/") + path
    kept = [(name, value) for name, value in outer["headers"] if name.lower() not in OF_THE_BODY]
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return {
        **{name: outer[name] for name in COPIED if name in outer},
        "method": "POST",
        "path": whole,
        "raw_path": whole.encode(),
        "query_string": b"",
        "headers": [*kept, *own],
    }
