"""The port between a stage and where its work runs. In: a task, its units, what workers reserve. Out: the units, as they are finished."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ragray.execute.worker_warnings import Warned, told_warnings
from ragray.progress import Progress

U = TypeVar("U")


class Task(ABC, Generic[U]):
    """What a worker does: it is set up once, then does units again and again, each into files below ``folder``.

    Units, and the arguments of `set_up`, are plain data that travels to other processes.
    """

    counts_deaths: bool = False
    """True where `do` itself counts the processes that die over a unit, and raises an error after so many."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def set_up(self, *args: Any) -> None:
        """Load what all units need."""

    @abstractmethod
    def do(self, unit: U) -> int:
        """Do one unit, again if need be: a dead worker's units are handed out anew. Return what it counts in the progress."""

    def describe(self, unit: U) -> str:
        """Name a unit in a message."""
        return str(getattr(unit, "name", unit))


@dataclass(frozen=True, slots=True)
class Resources:
    """What the workers of a stage reserve; where there is no room for ``num_workers``, fewer work at a time.

    ``settings`` are the configuration keys that lower it. With ``memory_bytes``, one number per unit, every unit gets a worker
    of its own with that much memory.
    """

    num_workers: int
    cpus: float = 1
    gpus: float = 0
    settings: tuple[str, ...] = ()
    memory_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished unit: what it counts, the seconds that its worker spent on it, how many workers work at a time, its warnings."""

    count: int
    seconds: float
    num_workers: int
    warnings: tuple[Warned, ...] = ()


class Executor(Protocol):
    """Where tasks run."""

    def map(
        self, task: type[Task[U]], units: Sequence[U], folder: Path, *args: Any, stage: str, resources: Resources
    ) -> AbstractContextManager[Iterator[Finished]]:
        """Do units, each once, on workers that are set up with ``args``; all that is held for them ends with the block.

        Nothing is started for no units.

        Raises:
            RagrayError: what a task raised on purpose, as it was raised; one line for anything else that goes wrong.
            ClusterError, ConfigError: there is no room for a single worker.
        """


def run_task(
    executor: Executor,
    task: type[Task[U]],
    units: Sequence[U],
    folder: Path,
    *args: Any,
    stage: str,
    total: int,
    counted: str,
    resources: Resources,
) -> float:
    """Do units, show the progress (``total`` of what is ``counted``), log warnings of workers. Return the seconds of work per worker.

    Raises as `Executor.map` does.
    """
    seconds = 0.0
    if not units:
        return seconds
    with (
        executor.map(task, units, folder, *args, stage=stage, resources=resources) as finished,
        Progress(stage, total=total, unit=counted) as progress,
        told_warnings() as warnings,
    ):
        for unit in finished:
            progress.advance(unit.count)
            warnings.add(unit.warnings)
            seconds += unit.seconds / unit.num_workers
    return seconds
