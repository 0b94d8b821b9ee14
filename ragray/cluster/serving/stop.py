"""Signals while a service runs. In: SIGINT and SIGTERM. Out: whether to stop, when to wait no longer, the exit code."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

from ragray import interrupts

SAME_S = 2.0
"""Signals within so many seconds count as one: supervisors signal a process and its group, people press Ctrl-C twice."""

ENDING_S = 15.0
"""Seconds that a service may take to end after its last answer; `ragray.interrupts` ends the process then."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Between `__enter__` and `__exit__` a first signal asks the service to stop; a later one, to stop without waiting.

    While ``num_waiting`` returns 0, which it does until the caller sets it, and the service is not `up`, the first
    signal ends the process by `SystemExit` at once; otherwise it calls ``when_asked``.
    """

    def __init__(
        self,
        drain_timeout_s: float = 0,
        hold_timeout_s: float = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how long answers in flight are waited for, and requests that are held while the models load."""
        self._drain_timeout_s = drain_timeout_s
        self._hold_timeout_s = hold_timeout_s
        self._clock = clock
        self._asked_at = 0.0
        self._before: dict[int, object] = {}
        self.num_waiting: Callable[[], int] = lambda: 0
        self.when_asked: Callable[[], None] = lambda: None
        self.up = False
        self.asked = threading.Event()
        self.forced = threading.Event()
        self.signal = 0

    @property
    def exit_code(self) -> int:
        """128 and the number of the first signal, as shells count; 0 without one."""
        return 128 + self.signal if self.signal else 0

    def __enter__(self) -> Stop:
        """Begin to listen; a signal that is ignored, as under nohup, stays ignored."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self.on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the handlers back that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned

    def on_signal(self, number: int, frame: FrameType | None = None) -> None:
        """Take one signal."""
        if not self.signal:
            self.signal, self._asked_at = number, self._clock()
            self.asked.set()
            self.leave_if_idle()
            interrupts.allow(self._drain_timeout_s + (0 if self.up else self._hold_timeout_s) + ENDING_S)
            self.when_asked()
        elif self._clock() - self._asked_at > SAME_S:
            self.forced.set()
            interrupts.allow(ENDING_S)

    def leave_if_idle(self) -> None:
        """Raise `SystemExit` if the service is to stop before it is up, and nobody waits for it or is waited for."""
        if self.asked.is_set() and not self.up and (self.forced.is_set() or not self.num_waiting()):
            raise SystemExit(self.exit_code)
