"""Ctrl-C and SIGTERM end a command, whatever it does. In: signals. Out: an exception in the main thread, later the end of the process.

The exception is the normal way: context managers release what they hold. It may not arrive, because the main thread is in a long C++
call, or a library catches the exception or has replaced the handler. Then a thread ends the process and its descendants. The thread
learns of signals from a pipe that the interpreter writes to in its C handler, so that it does not depend on the main thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import NoReturn

GRACE_S = 7.0
"""How long a process may take to end by itself once it was told to."""

POLL_S = 0.2
SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class _State:
    """The signals that this process has received so far."""

    def __init__(self) -> None:
        self.first = 0
        """The first signal, 0 before."""
        self.is_raised = False
        """Whether the main thread was told."""
        self.grace_s = GRACE_S
        self.until = 0.0
        self.below: set[tuple[int, str]] = set()
        self.stderr = -1
        self.ends = (-1, -1)


_state = _State()


def watch() -> None:
    """Install the handlers; call it in the main thread. A signal that is ignored, as under nohup, stays ignored."""
    if _state.stderr >= 0 or threading.current_thread() is not threading.main_thread():
        return
    _state.stderr = os.dup(2)  # Ray's start closes standard error for a while
    _state.ends = os.pipe()
    for end in _state.ends:
        os.set_blocking(end, end == _state.ends[0])
    signal.set_wakeup_fd(_state.ends[1], warn_on_full_buffer=False)
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)
    os.register_at_fork(after_in_child=_forget)
    threading.Thread(target=_listen, name="interrupts", daemon=True).start()


def received() -> int:
    """Return the number of the first signal that asked this process to end, 0 if none did."""
    return _state.first


def allow(seconds: float) -> None:
    """Set how long the process may take to end, counted from now if a signal has come already, else from the signal."""
    _state.grace_s = seconds
    if _state.first:
        _state.until = monotonic() + seconds


def end() -> NoReturn:
    """End this process and its remaining descendants for the signal that it received: one line, exit code 128 + n."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    for pid, started in _descendants(os.getpid()) | _state.below:
        if _start_time(pid) == started:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    number = _state.first or signal.SIGINT
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar has hidden it
    line = f"{show_cursor}ragray: {SIGNALS[signal.Signals(number)]}; run the same command to go on\n"
    with contextlib.suppress(OSError):
        os.write(_state.stderr if _state.stderr >= 0 else 2, line.encode())
    os._exit(128 + number)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    """Raise at the first signal only: further exceptions would interrupt the clean-up."""
    _note(number)
    if _state.is_raised:
        return
    _state.is_raised = True
    sys.unraisablehook = lambda _: None  # what breaks now breaks because we end
    threading.excepthook = lambda _: None
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _note(number: int) -> None:
    if not _state.first:
        _state.until = monotonic() + _state.grace_s  # before `first`, which the thread looks at
        _state.first = number
        with contextlib.suppress(OSError):
            os.write(_state.ends[1], bytes([number]))  # so that the thread hears of it even where the pipe was replaced


def _listen() -> None:
    """Wait for a signal, then for the time that the process may take, then end it."""
    while not _state.first:
        for number in os.read(_state.ends[0], 64):
            if number in SIGNALS and _is_ours(number):
                _note(number)
    _state.below = _descendants(os.getpid())  # those of a process that ends are no longer found below this one
    while monotonic() < _state.until:
        sleep(POLL_S)
    end()


def _forget() -> None:
    """Undo `watch` in a forked child, whose signals would otherwise reach the parent through the pipe that both share."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        if signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _is_ours(number: int) -> bool:
    return signal.getsignal(number) not in (signal.SIG_IGN, None)


def _descendants(ancestor: int) -> set[tuple[int, str]]:
    """Return the descendants of a process, each with its start time, because process ids are reused."""
    children: dict[int, list[tuple[int, str]]] = {}
    for folder in _processes():
        parent, started = _stat(folder)
        children.setdefault(parent, []).append((int(folder.name), started))
    found: set[tuple[int, str]] = set()
    waiting = [ancestor]
    while waiting:
        below = [child for child in children.get(waiting.pop(), []) if child not in found]
        found.update(below)
        waiting += [pid for pid, _ in below]
    return found


def _processes() -> Iterable[Path]:
    with contextlib.suppress(OSError):
        return [folder for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    return []


def _start_time(pid: int) -> str:
    return _stat(Path("/proc") / str(pid))[1]


def _stat(folder: Path) -> tuple[int, str]:
    """Return a process's parent and start time, (0, "") once it has ended."""
    try:
        fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(fields[1]), fields[19]
    except (OSError, ValueError, IndexError):
        return 0, ""
