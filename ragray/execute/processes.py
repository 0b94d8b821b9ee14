"""Work in processes of this machine. In: a task and units of work. Out: the units, as they are finished; a process that dies is replaced.

A process is told its job and its units through a pipe of its own, and ends when nobody holds the other end (`ragray.execute.spawn`).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import IO, Any, Generic, TypeVar

from ragray.errors import ConfigError, RagrayError
from ragray.execute.child import BEGUN
from ragray.execute.port import Finished, Resources, Task
from ragray.execute.spawn import spawn
from ragray.execute.worker import Job, Outcome, crash_marker_folder

MODULE = "ragray.execute.child"
STARTS = 3
"""Processes in a row that may end before they begin a unit; those that die over one leave crash markers (`ragray.execute.worker`)."""

U = TypeVar("U")


class ProcessExecutor:
    """Does units in as many processes as the stage asks for and this machine has CPUs and memory for."""

    @contextlib.contextmanager
    def map(
        self, task: type[Task[U]], units: Sequence[U], folder: Path, *args: Any, stage: str, resources: Resources
    ) -> Iterator[Iterator[Finished]]:
        """See `ragray.execute.port.Executor.map`.

        Raises:
            ConfigError: GPUs are wanted.
            RagrayError: what a task raises, or that processes end before they begin.
        """
        _require_no_gpus(stage, resources)
        if not units:
            yield iter(())
            return
        count = min(len(units), _room(resources))
        with crash_marker_folder(folder.resolve()) as markers:
            crew = _Crew(Job(task, folder.resolve(), args, markers), max(1, int(resources.cpus)))
            with contextlib.closing(crew), ThreadPoolExecutor(count) as threads:
                try:
                    futures = [threads.submit(crew.do, unit) for unit in units]
                    outcomes = (future.result() for future in as_completed(futures))
                    yield (Finished(outcome.count, outcome.seconds, count, outcome.warnings) for outcome in outcomes)
                finally:
                    threads.shutdown(wait=False, cancel_futures=True)
                    crew.kill()


def _require_no_gpus(stage: str, resources: Resources) -> None:
    if resources.gpus:
        names = [name for name in resources.settings if "gpu" in name]
        advice = f"set {' and '.join(names)} to 0, or " if names else ""
        raise ConfigError(
            f"{stage}: {resources.gpus:g} GPUs per worker wanted, processes of this machine get none; {advice}use --executor ray"
        )


def _room(resources: Resources) -> int:
    """Return how many workers this machine has CPUs and memory for, at least one and at most as many as are asked for."""
    by_cpus = int((os.cpu_count() or 1) / max(resources.cpus, 1e-3))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    by_memory = memory // max(resources.memory_bytes, default=0) if any(resources.memory_bytes) else by_cpus
    return max(1, min(resources.num_workers, by_cpus, by_memory))


@dataclass(frozen=True, slots=True)
class _Process:
    """One running process, our end of its pipe, and where its output goes."""

    running: subprocess.Popen[bytes]
    pipe: Connection
    output: IO[bytes]

    def ask(self, unit: Any) -> tuple[bool, Outcome | None]:
        """Have a unit done; return whether it was begun, and what it came to: nothing if the process has ended."""
        begun = False
        try:
            self.pipe.send(unit)
            answer = self.pipe.recv()
            begun = answer == BEGUN
            return True, self.pipe.recv() if begun else answer
        except (EOFError, OSError):
            return begun, None

    def last_words(self) -> str:
        """Return the exit code and the last line that it printed."""
        code = self.running.wait()
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        return f"exit code {code}" + (f": {lines[-1]}" if lines else "")


class _Crew(Generic[U]):
    """The processes: one for each unit that is being done, started when there is none to spare."""

    def __init__(self, job: Job[U], threads: int) -> None:
        self._job = job
        self._threads = threads
        self._spare: deque[_Process] = deque()
        self._started: list[_Process] = []
        self._ended = False
        self._lock = Lock()

    def do(self, unit: U) -> Outcome:
        """Do a unit with as many processes as that takes, one after the other; raise its error, if it has one."""
        starts = 0
        while True:
            try:
                process, started = self._spare.pop(), 0
            except IndexError:
                process, started = self._start(), 1
            begun, outcome = process.ask(unit)
            if outcome:
                self._spare.append(process)
                return outcome.require()
            starts = 0 if begun else starts + started
            if starts == STARTS:
                name = getattr(unit, "name", unit)
                raise RagrayError(
                    f"{starts} processes in a row ended before they could begin {name} ({process.last_words()})"
                )

    def kill(self) -> None:
        """Kill them all; nothing half-written is ever taken for whole."""
        with self._lock:
            self._ended = True
        for process in self._started:
            process.running.kill()

    def close(self) -> None:
        """Wait for the end of the processes that were killed, and close what was held for them."""
        for process in self._started:
            process.running.wait()
            process.pipe.close()
            process.output.close()

    def _start(self) -> _Process:
        with self._lock:
            if self._ended:
                raise RagrayError("the work was interrupted; run again")
            output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            name = f"{self._job.task.__module__}:{self._job.task.__qualname__}"
            running, ours = spawn(MODULE, name, self._environment(), output)
            process = _Process(running, ours, output)
            self._started.append(process)
        with contextlib.suppress(OSError):  # it has ended; so will the question be answered
            ours.send(self._job)
        return process

    def _environment(self) -> dict[str, str]:
        """Return the variables of a process: as many threads as it has CPUs, no GPU."""
        return {"OMP_NUM_THREADS": str(self._threads), **os.environ, "CUDA_VISIBLE_DEVICES": ""}
