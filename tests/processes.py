"""Processes that a test started, found by descent, so that no other cluster on the machine is ever touched."""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path


def descendants(ancestor: int, title: bytes = b"") -> list[int]:
    """Process ids below ``ancestor`` whose command line holds ``title`` (Ray writes what an actor is there)."""
    children: dict[int, list[int]] = {}
    titles: dict[int, bytes] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            titles[int(entry.name)] = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += [pid for pid in below if title in titles[pid]]
        waiting += below
    return sorted(found)


def actors_of_this_process(title: str) -> list[int]:
    """Process ids of the Ray actors or tasks with this title, on the cluster that this process started."""
    return descendants(os.getpid(), title.encode())


def marked(marker: str) -> list[int]:
    """Process ids with this text in the environment that they were started with, whoever their parents are now."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended meanwhile
            continue
    return sorted(found)


def left_after(pids: Iterable[int], title: bytes, seconds: float) -> list[int]:
    """Wait until the processes of a title have ended; return those that are left when the time is over."""
    left, deadline = list(pids), time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [pid for pid in left if _is(pid, title)]
    return left


def _is(pid: int, title: bytes) -> bool:
    with contextlib.suppress(OSError):
        return title in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
