"""What is measured of every request. In: requests and their responses. Out: counts and times, by route."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragray.retrieve.caller import current_caller
from ragray.serve.metrics.catalogue import DEGRADED, FIRST_S, OPEN, REQUEST_S, REQUESTS, RETRIEVAL_S, TOKENS
from ragray.serve.metrics.port import Metrics

LEFT = 499
"""Status of a request whose client left before the response began, as nginx has it."""

OTHER = "other"
"""The route of requests that no route answers: paths are free text, and each would be a time series of its own."""


class Measured:
    """Measures the requests of an application; it stands within what makes the `Caller` of each."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._num_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(send)
        self._show_open(1)
        try:
            await self._app(scope, receive, exchange.send)
        finally:
            self._show_open(-1)
            self._record(exchange, getattr(scope.get("route"), "path", OTHER))

    def _show_open(self, change: int) -> None:
        self._num_open += change
        self._metrics.set(OPEN, self._num_open)

    def _record(self, exchange: _Exchange, route: str) -> None:
        metrics, caller = self._metrics, current_caller()
        metrics.count(REQUESTS, labels=(route, str(exchange.status)))
        metrics.time(REQUEST_S, time.monotonic() - exchange.began, (route,))
        if exchange.first_s is not None:
            metrics.time(FIRST_S, exchange.first_s, (route,))
        if caller.retrieve_s is not None:
            metrics.time(RETRIEVAL_S, caller.retrieve_s)
        if caller.num_tokens:
            metrics.count(TOKENS, caller.num_tokens)
        if caller.degraded:
            metrics.count(DEGRADED)


class _Exchange:
    """One request: when it began, its status, and the seconds to the first text where its response is a stream of events."""

    def __init__(self, send: Send) -> None:
        self.began = time.monotonic()
        self.status = LEFT
        self.first_s: float | None = None
        self._send = send
        self._is_stream = False

    async def send(self, message: Message) -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._is_stream = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
        elif self._is_stream and self.first_s is None and message.get("body"):
            self.first_s = time.monotonic() - self.began
        await self._send(message)
