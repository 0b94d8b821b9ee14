"""The process of `ragray.generate.engines.apart`. In: what loads a generator, then calls, from a pipe. Out: their results, into the pipe.

It ends when nobody holds the other end of the pipe any more, and by itself where one call takes too long: a thread of `faulthandler`
sees to that, which needs no lock of Python's, so that it also works where the engine holds that for ever.
"""

from __future__ import annotations

import contextlib
import faulthandler
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from ragray.errors import RagrayError, ServingError, first_line
from ragray.execute.spawn import own_end
from ragray.generate.engine import Runner
from ragray.generate.engines.apart import Call, Load, Opened
from ragray.generate.generator import Generator

PATIENCE = 2
"""How many times longer than its parent, which tells of it, the process waits before it ends itself."""


def main(handle: int) -> None:
    """Load a generator, then do what is asked until the pipe is closed."""
    with own_end(handle) as parent, contextlib.suppress(EOFError, ConnectionError):
        load, step_timeout_s = parent.recv()
        generator = _load(parent, load)
        if generator is not None:
            _work(parent, generator, PATIENCE * step_timeout_s)


def _load(parent: Connection, load: Load) -> Generator | None:
    loaded = _attempt(load)
    parent.send(loaded if isinstance(loaded, RagrayError) else None)
    return loaded if isinstance(loaded, Generator) else None


def _work(parent: Connection, generator: Generator, limit_s: float) -> None:
    batch = _Batch(generator)
    while True:
        call: Call = parent.recv()
        faulthandler.dump_traceback_later(limit_s, exit=True)
        answer = _attempt(lambda call=call: batch.do(call))  # type: ignore[misc] # a lambda with a default
        faulthandler.cancel_dump_traceback_later()
        if call.method != "remove":
            parent.send(answer)


class _Batch:
    """The batch that the process has open."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._runner: Runner | None = None

    def do(self, call: Call) -> Any:
        """Do what is asked; raises what the runner raises."""
        if call.method == "open":
            self._runner = self._generator.open_runner()
            return Opened(self._runner.max_running, self._runner.gives_logits)
        if self._runner is None:
            raise ServingError(f"no batch is open to {call.method}")
        match call.method:
            case "add":
                return dict(self._runner.add(call.argument))
            case "remove":
                return self._runner.remove(call.argument)
            case "step":
                return self._runner.step()


def _attempt(work: Callable[[], Any]) -> Any:
    """Return what comes of it: its result, or its error, as one that the other process can raise."""
    try:
        return work()
    except RagrayError as err:
        return err
    except Exception as err:
        return ServingError(f"{type(err).__name__}: {first_line(err)}; try again, or set generate.engine=torch")


if __name__ == "__main__":
    main(int(sys.argv[1]))
