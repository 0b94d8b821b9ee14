"""Who is in the batch. In: sequences as they are submitted and cancelled. Out: who leaves and who joins before the next token. Pure.

Sequences join and leave between two tokens (iteration-level scheduling: Yu et al. 2022, Orca, OSDI, section 3.1).
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar


class Cancellable(Protocol):
    """A sequence; whoever submitted it may cancel it at any time, from any thread."""

    cancelled: bool


S = TypeVar("S", bound=Cancellable)


class Scheduler(Generic[S]):
    """First come, first served, ``max_running`` at a time. `submit` may be called from any thread, all else from one."""

    def __init__(self, max_running: int) -> None:
        self._max_running = max_running
        self._waiting: deque[S] = deque()
        self._running: dict[int, S] = {}
        self._last_key = 0

    def __len__(self) -> int:
        """Return the number of sequences that wait or run."""
        return len(self._waiting) + len(self._running)

    @property
    def num_running(self) -> int:
        """Number of sequences in the batch."""
        return len(self._running)

    def submit(self, sequence: S) -> None:
        """Queue a sequence."""
        self._waiting.append(sequence)

    def leave(self) -> list[int]:
        """Drop the cancelled sequences from the batch; return their keys."""
        left = [key for key, sequence in self._running.items() if sequence.cancelled]
        for key in left:
            del self._running[key]
        return left

    def join(self, *, joinable: bool) -> dict[int, S]:
        """Take waiting sequences into the batch; return them by the keys that they have there, which are never used again.

        ``joinable``: whether sequences can join those that run already; an empty batch can always be joined.
        """
        joined: dict[int, S] = {}
        limit = self._max_running if joinable or not self._running else 0
        while self._waiting and len(self._running) < limit:
            sequence = self._waiting.popleft()
            if not sequence.cancelled:
                self._last_key += 1
                self._running[self._last_key] = joined[self._last_key] = sequence
        return joined

    def finish(self, key: int) -> S:
        """Remove a sequence that is finished, or was refused, from the batch, and return it."""
        return self._running.pop(key)

    def get(self, key: int) -> S:
        """Return a sequence of the batch."""
        return self._running[key]

    def fail(self) -> list[S]:
        """Empty the batch, and return what was in it; those that wait stay."""
        failed = list(self._running.values())
        self._running.clear()
        return failed

    def close(self) -> list[S]:
        """Forget all sequences, and return them."""
        left = [*self.fail(), *self._waiting]
        self._waiting.clear()
        return left
