"""What a response was answered from, as headers. In: a request's `Caller` after its lookup. Out: `x-ragray-snapshot`, `x-ragray-run`.

Where the time went is known to a route alone, which writes it with `timing`.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragray.retrieve.caller import current_caller
from ragray.serve.answerer import Answerer

SNAPSHOT, RUN = "x-ragray-snapshot", "x-ragray-run"


def timing(**seconds: float) -> dict[str, str]:
    """Return the header that says how long each stage took, in milliseconds."""
    return {"server-timing": ", ".join(f"{stage};dur={1000 * value:.1f}" for stage, value in seconds.items())}


class NamesServed:
    """Names the snapshot that a request's passages came from, and the run, in the head of every response that needed one."""

    def __init__(self, app: ASGIApp, answerer: Answerer) -> None:
        self._app = app
        self._answerer = answerer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        caller = current_caller()

        async def name(message: Message) -> None:
            if message["type"] == "http.response.start" and caller.questions:
                headers = MutableHeaders(scope=message)
                for header, value in ((SNAPSHOT, caller.snapshot), (RUN, self._answerer.run)):
                    if value:
                        headers.setdefault(header, value)
            await send(message)

        await self._app(scope, receive, name)
