"""Which snapshot is served. In: numbered ways to open snapshots. Out: the newest that opened; one that fails changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Served(Generic[T]):
    """A snapshot, as whoever holds it has it; every swap has a larger ``number`` than the one before."""

    number: int
    snapshot: T


class SnapshotHolder(Generic[T]):
    """Opens snapshots beside the served one and switches to them; may be used from several threads.

    A reader keeps what it got from `current` or `find` for the length of its search. The holder only drops its own reference
    when it switches, so the old snapshot is released when its last reader is done, and no reader ever sees two snapshots.
    """

    def __init__(self, served: Served[T] | None = None) -> None:
        """Begin with a snapshot that is open already, or with none."""
        self._current = served
        self._wanted = served.number if served else -1
        self._beside: dict[int, T] = {}
        self._lock = threading.Lock()
        self._opening = threading.Lock()

    @property
    def current(self) -> Served[T] | None:
        """The snapshot that the next search uses; None before the first was opened."""
        return self._current

    def find(self, number: int) -> T | None:
        """Return an open snapshot by its number: the served one, or one that was opened beside it."""
        with self._lock:
            current = self._current
            return current.snapshot if current and current.number == number else self._beside.get(number)

    def opened(self) -> list[T]:
        """Return all open snapshots: the served one, and those that were opened beside it."""
        with self._lock:
            return [*([self._current.snapshot] if self._current else []), *self._beside.values()]

    def reserve(self) -> int:
        """Return the number of a swap that was asked for now; of several swaps the one with the largest number wins."""
        with self._lock:
            self._wanted = max(self._wanted, self._current.number if self._current else -1) + 1
            return self._wanted

    def swap(self, number: int, open_: Callable[[], T]) -> bool:
        """Open a snapshot beside the served one, and serve it; ``open_`` also checks it.

        Returns False where a swap with a larger number was asked for meanwhile: ``open_`` may not have been called then, and the
        older snapshot is served on, as it also is where ``open_`` raises. Swaps open their snapshots one after the other.
        """
        with self._opening:
            if number < self._wanted:
                return False
            opened = open_()
            return number == self._wanted and self.switch(Served(number, opened))

    def prepare(self, number: int, open_: Callable[[], T]) -> T:
        """Open a snapshot beside the served one unless it is open, and keep it for `switch`; raises what ``open_`` raises."""
        found = self.find(number)
        if found is None:
            found = open_()
            with self._lock:
                self._beside[number] = found
        return found

    def switch(self, served: Served[T]) -> bool:
        """Serve a snapshot from now on, and let go of all older ones; returns False where one as new is served already."""
        with self._lock:
            if self._current and served.number <= self._current.number:
                return False
            self._current = served
            for number in [number for number in self._beside if number <= served.number]:
                del self._beside[number]
            return True

    def release(self, number: int) -> None:
        """Let go of a snapshot that was opened beside the served one, if it was."""
        with self._lock:
            self._beside.pop(number, None)
