"""A Python process at the other end of a pipe. In: a module of ours that talks to a pipe. Out: the process, and our end.

It is no child of `multiprocessing`, which would run the main script of the program again. It is in a session of its own, so that
Ctrl-C in a terminal reaches the program alone, and is expected to end when nobody holds our end any more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO


def spawn(
    module: str, name: str, environment: Mapping[str, str], output: IO[bytes] | None = None
) -> tuple[subprocess.Popen[bytes], Connection]:
    """Run ``python -m module HANDLE name`` with the modules of this process; ``name`` is for who looks at the processes.

    What it prints goes to ``output``; without that its errors go where those of this process go, and the rest nowhere.
    """
    ours, theirs = Pipe()
    path = os.pathsep.join(filter(None, sys.path))
    with theirs:
        running = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno()), name], pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, stdout=output or subprocess.DEVNULL, stderr=output, start_new_session=True,
            env={**environment, "PYTHONPATH": path},
        )  # fmt: skip
    return running, ours


def own_end(handle: int) -> Connection:
    """Return the pipe of a process that `spawn` started, from the first of its arguments; processes below do not inherit it."""
    os.set_inheritable(handle, False)
    return Connection(handle)
