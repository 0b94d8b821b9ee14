"""The keys in force. In: a file that changes, a key that a request brings. Out: which key it is."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path

from ragray.errors import ConfigError
from ragray.serve.access.keys import Key, digest, read_keys

CHECK_S = 1.0
"""Seconds between two looks at the file."""

logger = logging.getLogger("ragray.serve")

Seen = tuple[int, int, int] | None


class Keyring:
    """The keys of a file, read again when it changes; while it is damaged or gone, those that it held before are in force."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file; raises `ConfigError` where it cannot be read."""
        self._path = path
        self._clock = clock
        self._seen = _seen(path)
        self._keys = read_keys(path)
        self._looked_at = clock()

    def find(self, secret: str) -> Key | None:
        """Return the key whose secret this is; all are compared, each in constant time."""
        self._refresh()
        wanted, found = digest(secret), None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, wanted):
                found = key
        return found

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._looked_at < CHECK_S:
            return
        self._looked_at = now
        seen = _seen(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._keys = read_keys(self._path)
            logger.info("%s: %d keys are in force", self._path, len(self._keys))
        except ConfigError as err:
            logger.error("%s; the %d keys that were in force stay so", err, len(self._keys))


def _seen(path: Path) -> Seen:
    """Return what changes whenever the file does; None where it cannot be looked at."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size
