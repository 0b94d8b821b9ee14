"""A generator in a process of its own. In: what loads it. Out: a `Generator` whose answers are written there.

An engine may hold Python's lock while it computes (openvino-genai 2026.4 does for the whole of a step): where it shares a process
with HTTP, nobody is served meanwhile. A process that dies or hangs is told as an error of the requests that it was answering; the
next batch starts another.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from ragray.errors import InputError, RagrayError, ServingError
from ragray.execute.spawn import spawn
from ragray.generate.engine import Generation, Piece, Submission
from ragray.generate.generator import Generator

MODULE = "ragray.generate.engines.apart_child"
START_TIMEOUT_S = 900.0
STEP_TIMEOUT_S = 120.0
"""A step takes a second, on a machine that others have taken tens of them; after so many it hangs."""

Load = Callable[[], Generator]


@dataclass(frozen=True, slots=True)
class Call:
    """What the process is to do with its batch; all but `remove` are answered: with a result, or with an error to raise."""

    method: Literal["open", "add", "remove", "step"]
    argument: Any = None


@dataclass(frozen=True, slots=True)
class Opened:
    """What is known of a batch that was opened: the constants of `Runner`."""

    max_running: int
    gives_logits: bool


class ApartGenerator(Generator):
    """Has another process load a generator, and write its answers."""

    def __init__(
        self, load: Load, check: Callable[[str, str], None], *, name: str, step_timeout_s: float = STEP_TIMEOUT_S
    ) -> None:
        """Start the process; ``load`` runs there, ``check`` (see `Generator.check`) here. ``name`` is that of the engine."""
        self._load = load
        self._check = check
        self._name = name
        self._step_timeout_s = step_timeout_s
        self._process = EngineProcess(name, load, step_timeout_s)
        self._runner: ApartRunner | None = None

    def wait(self) -> None:
        """Wait until the process has loaded the generator.

        Raises:
            ServingError: the process ended, or did not load the generator in time.
            RagrayError: what ``load`` raises.
        """
        self._process.wait()

    def check(self, question: str, instruction: str = "") -> None:
        """Raise `InputError`, which names the limit, where a question with its instruction is too long for the model."""
        self._check(question, instruction)

    def open_runner(self) -> ApartRunner:
        """Begin an empty batch: in another process where this one has ended, or has a batch that was not finished.

        Raises as `wait` does.
        """
        if not self._process.is_alive or (self._runner is not None and len(self._runner)):
            self._process.end()
            self._process = EngineProcess(self._name, self._load, self._step_timeout_s)
        self._runner = ApartRunner(self._process)
        return self._runner


class EngineProcess:
    """A process that holds a generator with one batch, and our end of its pipe; it ends when nobody refers to this any more."""

    def __init__(self, name: str, load: Load, step_timeout_s: float) -> None:
        self._name = name
        self._step_timeout_s = step_timeout_s
        self._running: subprocess.Popen[bytes]
        self._pipe: Connection
        self._running, self._pipe = spawn(MODULE, name, os.environ)
        self._end = weakref.finalize(self, _end, self._running, self._pipe)
        self._loaded = False
        with contextlib.suppress(OSError):  # where it has ended already, `wait` tells
            self._pipe.send((load, step_timeout_s))

    def wait(self) -> None:
        """Wait until the generator is loaded; raises as `ApartGenerator.wait` does, and ends the process then."""
        if self._loaded:
            return
        try:
            self._answer(START_TIMEOUT_S)
        except RagrayError:
            self.end()
            raise
        self._loaded = True

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return not self._pipe.closed and self._running.poll() is None

    def ask(self, call: Call) -> Any:
        """Have something done.

        Raises:
            ServingError: the process has ended, or does not answer; it is ended then.
            RagrayError: what the engine raises.
        """
        self.wait()
        with contextlib.suppress(OSError):  # where it has ended, there is no answer
            self._pipe.send(call)
        return self._answer(self._step_timeout_s)

    def tell(self, call: Call) -> None:
        """Have something done that is not answered; where the process has ended, the next question tells."""
        with contextlib.suppress(OSError):
            self._pipe.send(call)

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._end()

    def _answer(self, timeout_s: float) -> Any:
        try:
            answer = self._pipe.recv() if self._pipe.poll(timeout_s) else self._silent(timeout_s)
        except (EOFError, OSError):
            answer = ServingError(
                f"{self._name}: its process ended (exit code {self._exit_code()}); try again in a few seconds"
            )
        if isinstance(answer, RagrayError):
            raise answer
        return answer

    def _silent(self, timeout_s: float) -> ServingError:
        self.end()
        return ServingError(
            f"{self._name}: its process did not answer for {timeout_s:g} s and was ended; try again in a few seconds"
        )

    def _exit_code(self) -> int:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._running.wait(1)  # it closed its end of the pipe an instant before it ended
        self.end()
        return self._running.returncode


def _end(running: subprocess.Popen[bytes], pipe: Connection) -> None:
    running.kill()
    running.wait()
    pipe.close()


class ApartRunner:
    """The batch of another process, of an engine whose batch can always be joined."""

    joinable = True

    def __init__(self, process: EngineProcess) -> None:
        opened: Opened = process.ask(Call("open"))
        self.max_running = opened.max_running
        self.gives_logits = opened.gives_logits
        self._process = process
        self._keys: set[int] = set()

    def __len__(self) -> int:
        """Return the number of answers that are being written."""
        return len(self._keys)

    def add(self, requests: Mapping[int, Submission]) -> Mapping[int, InputError]:
        """Let requests join; return why those were refused that did not join. Raises as `EngineProcess.ask` does."""
        refused: Mapping[int, InputError] = self._process.ask(Call("add", requests))
        self._keys.update(requests.keys() - refused.keys())
        return refused

    def remove(self, key: int) -> None:
        """Let a request leave before its answer is finished."""
        if key in self._keys:
            self._keys.remove(key)
            self._process.tell(Call("remove", key))

    def step(self) -> list[tuple[int, Piece]]:
        """Write a token of every answer. Raises as `EngineProcess.ask` does."""
        if not self._keys:
            return []
        written: list[tuple[int, Piece]] = self._process.ask(Call("step"))
        self._keys.difference_update(key for key, piece in written if isinstance(piece, Generation))
        return written
