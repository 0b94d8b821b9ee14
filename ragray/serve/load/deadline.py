"""How long a request may take. In: the header `x-request-timeout`, in seconds. Out: the seconds that are left, for whatever waits."""

from __future__ import annotations

import math
from contextvars import ContextVar
from time import monotonic

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ragray.errors import InputError

TIMEOUT_HEADER = "x-request-timeout"

_REQUEST: ContextVar[tuple[str, float] | None] = ContextVar("request", default=None)
"""The header as it was sent, and when its request began."""


def time_left(limit_s: float) -> float:
    """Return the seconds that are left of the time that a request wants to wait, but ``limit_s`` at most; never below 0.

    Raises:
        InputError: the header is no number of seconds.
    """
    header, began = _REQUEST.get() or ("", 0.0)
    if not header:
        return limit_s
    return max(0.0, min(limit_s, _seconds(header) - (monotonic() - began)))


def _seconds(header: str) -> float:
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f"{TIMEOUT_HEADER}: '{header[:40]}' is no number of seconds above 0; write for instance 2.5")
    return seconds


class Deadline:
    """Remembers for each request when it began and how long it wants to wait."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            _REQUEST.set((Headers(scope=scope).get(TIMEOUT_HEADER, "").strip(), monotonic()))
        await self._app(scope, receive, send)
