"""The door of a service with keys. In: a request. Out: it is passed on within its key's filter and limits, or refused with 401 or 429.

Every path is closed but those that are named: a route that is added later needs a key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragray.retrieve.caller import current_caller
from ragray.serve.access.keyring import Keyring
from ragray.serve.access.keys import Key
from ragray.serve.access.limits import KeyLimits
from ragray.serve.failure import BAD_KEY, NO_KEY, Failure
from ragray.serve.guard import Responds, own_path, respond

SCHEME = "bearer"
LIMITED = "rate_limit_exceeded"
POLICY_VIOLATION = 1008
"""What a WebSocket is closed with."""


class Door:
    """Lets requests with a key in, and fills in the `Caller` that the access log has made for each.

    ``open_paths`` need no key. ``responds`` says for a path how its errors are written, where that is not ragray's own way.
    """

    def __init__(
        self,
        app: ASGIApp,
        keyring: Keyring,
        *,
        open_paths: Collection[str],
        responds: Responds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._keyring = keyring
        self._limits = KeyLimits()
        self._open_paths = open_paths
        self._responds = responds
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        elif own_path(scope) in self._open_paths:
            known = self._key_of(scope)
            current_caller().name = known.name if isinstance(known, Key) else ""
            await self._app(scope, receive, send)
        else:
            known = self._key_of(scope)
            if isinstance(known, Key):
                await self._answer(known, scope, receive, send)
            else:
                response = respond(self._responds, scope, known)
                response.headers["WWW-Authenticate"] = "Bearer"
                await response(scope, receive, send)

    def _key_of(self, scope: Scope) -> Key | Failure:
        """Return the key that a request brings, or why it may not come in."""
        scheme, _, secret = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != SCHEME or not secret.strip():
            return _denied(
                "no key: send the header 'Authorization: Bearer KEY' with one from `ragray keys add`", NO_KEY
            )
        key = self._keyring.find(secret.strip())
        if key is None:
            return _denied("the key is not known here, or was revoked; ask for one from `ragray keys add`", BAD_KEY)
        if key.is_expired(datetime.now(UTC)):
            return _denied(f"the key '{key.name}' expired at {key.expires}; ask for a new one", BAD_KEY)
        return key

    async def _answer(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of a key, unless its limits are used up; every response says what is left of them."""
        caller = current_caller()
        caller.name, caller.where = key.name, key.where

        async def announce(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._limits.headers(key, caller.num_tokens, self._clock()))
            await send(message)

        used_up, wait_s = self._limits.admit(key, self._clock())
        if used_up:
            message = f"the key '{key.name}' has used up its {used_up} per minute; try again in {wait_s} s"
            failure = Failure(429, "rate_limited", message, wait_s, code=LIMITED)
            await respond(self._responds, scope, failure)(scope, receive, announce)
            return
        try:
            await self._app(scope, receive, announce)
        finally:
            self._limits.spend(key, caller.num_tokens, self._clock())


def _denied(message: str, code: str) -> Failure:
    return Failure(401, "unauthorized", message, code=code)
