"""Warnings of workers, whose own logs nobody reads. In: what a task logs in a worker. Out: the log of the stage, one line per kind."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

Warned = tuple[str, str, int]
"""A kind of warning (its template), the first of the kind, and how many there were."""

logger = logging.getLogger("ragray")


class _Caught(logging.Filter):
    """Takes the warnings of one thread off the logger and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, str] = {}
        self.count: Counter[str] = Counter()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the logger is to handle a record itself."""
        if record.levelno != logging.WARNING or record.thread != self._thread:
            return True
        text = record.getMessage().encode("utf-8", "backslashreplace").decode()  # names of files need not be UTF-8
        self.first.setdefault(str(record.msg), text)
        self.count[str(record.msg)] += 1
        return False


@contextmanager
def caught_warnings(found: list[Warned]) -> Iterator[None]:
    """Put the warnings that are logged in the block into ``found``, however the block ends."""
    caught = _Caught()
    logger.addFilter(caught)
    try:
        yield
    finally:
        logger.removeFilter(caught)
        found.extend((kind, caught.first[kind], count) for kind, count in caught.count.items())


@contextmanager
def told_warnings() -> Iterator[_Told]:
    """Yield what logs the warnings of finished units: the first of a kind at once, the number of the others when the block ends."""
    told = _Told()
    try:
        yield told
    finally:
        for kind, first in told.first.items():
            if told.count[kind] > 1:
                logger.warning("%s (and %d more like this)", first, told.count[kind] - 1)


class _Told:
    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self.count: Counter[str] = Counter()

    def add(self, warnings: Sequence[Warned]) -> None:
        """Log a kind of warning that is new, count the others."""
        for kind, first, count in warnings:
            if kind not in self.first:
                self.first[kind] = first
                logger.warning("%s", first)
            self.count[kind] += count
