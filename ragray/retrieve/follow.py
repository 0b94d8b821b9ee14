"""Which snapshot a service answers from. In: the folder of an index, whose `CURRENT` is looked at again and again. Out: what is served.

A snapshot that `CURRENT` comes to name is opened and checked beside the served one. Only when that has succeeded everywhere is it
served; where it fails anywhere, the old one is served on, and the new one is tried again when `CURRENT` is next written.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from ragray.errors import NotAnArtifactError, RagrayError, ServingError
from ragray.index.store.snapshot import CURRENT
from ragray.retrieve.retriever import AS_SET, Embedded, Retriever, RetrieverFacts, RetrieverModels, SearchOptions
from ragray.retrieve.shelf import IndexSource, OpenSnapshot, Shelf
from ragray.types import Hit, Passage, RetrievalResult

POLL_S = 1.0
"""Seconds between two looks at `CURRENT`."""

UNKNOWN_POLL_S = 0.1
"""The same, as long as it is not known what is served."""

logger = logging.getLogger("ragray.serve")


class Keeper(Protocol):
    """Holds snapshots open, here or in other processes: a `Shelf`, or one in each replica."""

    def held(self) -> IndexSource | None:
        """Return what was searched last, None where that cannot be said yet."""

    def prepare(self, source: IndexSource) -> None:
        """Open and check a snapshot everywhere.

        Raises:
            RagrayError: it cannot be served.
            ServingError: whether it can is not known, because a process ended; it may be tried again.
        """

    def keep(self, source: IndexSource) -> None:
        """Let go of all snapshots but one, everywhere."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look found: the source with the snapshot that it names now, and what tells two writings of the same name apart."""

    source: IndexSource
    written: tuple[int, int] = (0, 0)


def look(source: IndexSource) -> Seen:
    """Return what is to be served: the snapshot that ``source`` pins, else the one that `CURRENT` names.

    The file is opened rather than asked for its time: a shared file system then shows what other machines wrote.

    Raises:
        NotAnArtifactError: `CURRENT` cannot be read.
    """
    if source.snapshot:
        return Seen(source)
    path = Path(source.index) / CURRENT
    try:
        with path.open("rb") as file:
            state, name = os.fstat(file.fileno()), file.read().decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise NotAnArtifactError(f"{path}: cannot be read ({getattr(err, 'strerror', None) or err})") from err
    return Seen(replace(source, snapshot=name), (state.st_ino, state.st_mtime_ns))


class Follower:
    """Follows one source, beginning with what is ``served``, or with what the keeper says it holds.

    Readers take `served` once per request, so that a request is answered from one snapshot. With ``once``, a source is looked at
    when it is wanted and not again.
    """

    def __init__(
        self, source: IndexSource, keeper: Keeper, served: IndexSource | None = None, *, once: bool = False
    ) -> None:
        self._source = source
        self._keeper = keeper
        self._once = once
        self._seen: Seen | None = None
        self._ended = threading.Event()
        self.served = served
        """None where the keeper has not said yet what it holds."""
        self.loading = False
        self.last_error = ""
        """Why the last snapshot was refused, "" where it was not."""

    def want(self, source: IndexSource) -> None:
        """Follow another source from the next look on."""
        self._source, self._seen = source, None

    def want_config(self, user_config: Mapping[str, JsonValue]) -> None:
        """Follow what a ``user_config`` names; where it cannot be read, that is the last error."""
        try:
            self.want(IndexSource.parse(user_config))
        except RagrayError as err:
            self._refuse(str(err))

    def poll(self) -> None:
        """Look once; open, check and serve what is new. An error is noted and logged, never raised."""
        try:
            self.served = self.served or self._keeper.held()
            if self.served is None or (self._once and self._seen):
                return
            seen = look(self._source)
            if seen != self._seen:
                self._seen = seen
                self._switch(seen.source)
                self.last_error = ""
        except ServingError as err:
            self._seen = None  # a process ended that was to open it: it is tried again
            self._refuse(str(err))
        except RagrayError as err:
            self._refuse(str(err))
        except Exception as err:
            self._refuse(f"{type(err).__name__}: {err}")

    def _switch(self, source: IndexSource) -> None:
        if source == self.served:
            return
        self.loading = True
        try:
            self._keeper.prepare(source)
            self.served = source
        finally:
            self.loading = False
            if self.served:
                self._keeper.keep(self.served)
        logger.info("snapshot %s of %s is served", source.snapshot, source.index)

    def _refuse(self, reason: str) -> None:
        if reason != self.last_error:
            self.last_error = reason
            logger.error("a snapshot of %s is refused, the older one is served on: %s", self._source.index, reason)

    def start(self, every_s: float = POLL_S) -> Follower:
        """Look every so many seconds, in a thread, until `close`."""
        threading.Thread(target=self._run, args=(every_s,), name="follow", daemon=True).start()
        return self

    def close(self) -> None:
        """End the thread."""
        self._ended.set()

    def _run(self, every_s: float) -> None:
        while not self._ended.is_set():
            self.poll()
            self._ended.wait(every_s if self.served else min(every_s, UNKNOWN_POLL_S))


class FollowedRetriever:
    """The port `Retriever` over what a follower serves: each call uses the snapshot that is served when it begins."""

    def __init__(self, source: IndexSource, open_: OpenSnapshot, *, once: bool = False) -> None:
        """Open what ``source`` names, and begin to follow it; raises what ``open_`` raises."""
        self._shelf = Shelf(open_)
        self.follower = Follower(source, self._shelf, self._shelf.open_first(source), once=once)

    def _now(self) -> Retriever:
        served = self.follower.served
        assert served is not None  # it began with what was opened first
        return self._shelf.get(served)

    @property
    def snapshot(self) -> str:
        """Name of the snapshot that the next search uses."""
        return self._now().snapshot

    @property
    def models(self) -> RetrieverModels:
        """The models that are loaded."""
        return self._now().models

    @property
    def facts(self) -> RetrieverFacts:
        """What is to be watched."""
        return self._now().facts

    def search(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        """Return for every query its k best passages, best first."""
        return self._now().search(queries, k, options)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Encode texts as questions are encoded."""
        return self._now().embed(texts)

    def rerank(self, query: str, passages: Sequence[Passage]) -> list[Hit]:
        """Order passages by the reranker's scores, best first."""
        return self._now().rerank(query, passages)
