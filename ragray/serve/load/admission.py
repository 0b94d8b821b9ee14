"""Whether a request is let in. In: requests as they begin and end, on a clock. Out: the wait to expect, and until when to stay away. Pure.

Who finds n requests there is answered after about n + 1 paces, one pace being the time between two answers while there are requests to
answer (Little 1961: the number in a system is its rate times the time in it). The pace is measured, so that it holds for any engine,
batch and number of replicas: while few are let in it is that of small batches, and as more are let in it shrinks to that of full ones.
"""

from __future__ import annotations

import math
from collections import deque

WINDOW = 64
"""Answers that the pace is measured over."""

TRUST = 0.8
"""Share of a request's time that the expected wait may fill; the rest is for what the estimate misses."""

SHORT = 0.5
"""Share of that from which on work is spared."""


class Admission:
    """The requests of a service, all of whom may be cancelled or fail; times are seconds of one clock that never goes back."""

    def __init__(self, most: int) -> None:
        """Take how many requests may be open at one time."""
        self._most = most
        self._open = 0
        self._busy_s, self._counted_at = 0.0, 0.0
        self._answered_at = deque([0.0], maxlen=WINDOW + 1)  # in busy seconds

    @property
    def num_open(self) -> int:
        """Number of requests that have begun and not ended."""
        return self._open

    def begin(self, now: float, number: int = 1) -> None:
        """Count requests that are let in."""
        self._count_time(now)
        self._open += number

    def end(self, now: float, number: int = 1, *, answered: bool) -> None:
        """Count requests that left; only those that were answered tell of the pace."""
        self._count_time(now)
        self._open -= number
        if answered:
            self._answered_at.extend([self._busy_s] * number)

    def pace_s(self, now: float) -> float:
        """Return the seconds between two answers; 0 before the first one."""
        self._count_time(now)
        num_answers = len(self._answered_at) - 1
        return (self._busy_s - self._answered_at[0]) / num_answers if num_answers else 0.0

    def wait_s(self, now: float, number: int = 1) -> float:
        """Return in how many seconds further requests can be expected to be answered."""
        return (self._open + number) * self.pace_s(now)

    def retry_after_s(self, now: float, within_s: float, number: int = 1) -> int:
        """Return after how many seconds requests that must be answered within a time can be let in; 0: now.

        Where nothing is open the answer is 0: nothing would be learnt of a service whose requests are all refused.
        """
        if not self._open:
            return 0
        late_s = self.wait_s(now, number) - TRUST * within_s
        if self._open + number > self._most:
            late_s = max(late_s, (self._open + number - self._most) * self.pace_s(now), 1.0)
        return max(0, math.ceil(late_s))

    def is_short(self, now: float, within_s: float) -> bool:
        """Return whether so much is open that a further request should cost less than usual."""
        return self._open > 0 and self.wait_s(now) > SHORT * TRUST * within_s

    def _count_time(self, now: float) -> None:
        if self._open:
            self._busy_s += now - self._counted_at
        self._counted_at = now
