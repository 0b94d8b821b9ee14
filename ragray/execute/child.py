"""One process of `ragray.execute.processes`. In: a job, then units, from a pipe. Out: what each came to, into the pipe.

It ends when nobody holds the other end of the pipe any more.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from ragray.execute.spawn import own_end
from ragray.execute.worker import Job, Worker

BEGUN = "begun"
"""What a process sends when it is set up and begins a unit."""


def main(handle: int) -> None:
    """Do units until the pipe is closed."""
    with own_end(handle) as parent, contextlib.suppress(EOFError, ConnectionError):
        job: Job[Any] = parent.recv()
        worker = Worker(job)
        while True:
            parent.send(worker.attempt(parent.recv(), on_begin=lambda: parent.send(BEGUN)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
