"""Open snapshots by their source. In: which snapshot a request names. Out: a retriever over it; several are open during a swap."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import JsonValue

from ragray.errors import ConfigError
from ragray.retrieve.retriever import Retriever

MOST_OPEN = 3
"""Snapshots that stay open at most: the served one, the one before it, and one that is being checked."""


@dataclass(frozen=True, slots=True)
class IndexSource:
    """What is searched: the folder of an index, the run whose question encoder searches it, a snapshot ("" is the current one)."""

    index: str
    run: str = ""
    snapshot: str = ""

    @classmethod
    def parse(cls, user_config: Mapping[str, JsonValue]) -> IndexSource:
        """Read a Gateway's ``user_config``; raises `ConfigError` naming the key that is wrong."""
        for key, value in user_config.items():
            if key not in ("index", "run", "snapshot"):
                raise ConfigError(f"user_config of Gateway: unknown key '{key}' (known: index, run, snapshot)")
            if not isinstance(value, str):
                raise ConfigError(f"user_config of Gateway: {key}={value!r}, expected a string")
        if not user_config.get("index"):
            raise ConfigError("user_config of Gateway: no 'index', expected the folder of an index")
        return cls(**{key: str(value) for key, value in user_config.items()})


class OpenSnapshot(Protocol):
    """Opens a snapshot, with the models that search it."""

    def __call__(self, source: IndexSource, *, checked: bool) -> Retriever:
        """Return a retriever over a snapshot, the current one where ``source`` names none.

        ``checked``: it is opened beside another one that is served, and must show that its rows are found.
        """


class Shelf:
    """Retrievers over the snapshots that requests name; may be used from several threads, of which one opens at a time.

    A reader keeps the retriever that it got for the length of its search. The shelf only drops its own reference, so that a
    snapshot is released when its last reader is done, and no reader ever sees two.
    """

    def __init__(self, open_: OpenSnapshot) -> None:
        self._open = open_
        self._retrievers: dict[IndexSource, Retriever] = {}
        self._opening = threading.Lock()
        self._latest: IndexSource | None = None

    def find(self, source: IndexSource) -> Retriever | None:
        """Return the retriever that a request searches, None where its snapshot is not open."""
        found = self._retrievers.get(source)
        if found:
            self._latest = source
        return found

    def get(self, source: IndexSource) -> Retriever:
        """Return the retriever that a request searches; a snapshot that is not open is opened, as after a restart.

        Raises:
            RagrayError: it cannot be opened, or used.
        """
        found = self._opened(source, checked=False)
        self._latest = source
        return found

    def open_first(self, source: IndexSource) -> IndexSource:
        """Open what is served first, the current snapshot where ``source`` names none; return it with the snapshot's name."""
        retriever = self._open(source, checked=False)
        first = self._latest = replace(source, snapshot=retriever.snapshot)
        self._retrievers[first] = retriever
        return first

    def held(self) -> IndexSource | None:
        """Return what the latest search named, or what was opened first."""
        return self._latest

    def prepare(self, source: IndexSource) -> None:
        """Open and check a snapshot beside those that are open, before a search names it; raises what opening raises."""
        self._opened(source, checked=True)

    def keep(self, source: IndexSource) -> None:
        """Let go of all snapshots but one."""
        with self._opening:
            self._retrievers = {kept: each for kept, each in self._retrievers.items() if kept == source}

    def opened(self) -> list[IndexSource]:
        """Return what is open."""
        return list(self._retrievers)

    def _opened(self, source: IndexSource, *, checked: bool) -> Retriever:
        with self._opening:
            found = self._retrievers.get(source)
            if found is None:
                found = self._open(source, checked=checked)
                recent = list(self._retrievers.items())[1 - MOST_OPEN :]
                self._retrievers = dict([*recent, (source, found)])
            return found
