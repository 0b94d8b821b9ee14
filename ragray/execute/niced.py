"""Work that yields to all other work. In: another executor. Out: the same units, done at the lowest priority that a process can have."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ragray.execute.port import Executor, Finished, Resources, Task

LOWEST = 19
"""What a process's niceness is raised to: where others want the CPU, it gets about a seventieth of their time."""

U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class NicedExecutor:
    """Lets another executor's workers do their units at low priority; they are to be processes of their own."""

    executor: Executor

    def map(
        self, task: type[Task[U]], units: Sequence[U], folder: Path, *args: Any, stage: str, resources: Resources
    ) -> AbstractContextManager[Iterator[Finished]]:
        """See `ragray.execute.port.Executor.map`."""
        return self.executor.map(NicedTask, units, folder, task, *args, stage=stage, resources=resources)


class NicedTask(Task[Any]):
    """Another task in a process that has lowered its priority."""

    def set_up(self, task: type[Task[Any]], *args: Any) -> None:
        """Lower the priority of this process, then set the task up."""
        os.nice(LOWEST)
        self._task = task(self.folder)
        self.counts_deaths = self._task.counts_deaths
        self._task.set_up(*args)

    def do(self, unit: Any) -> int:
        """Do a unit of the task."""
        return self._task.do(unit)

    def describe(self, unit: Any) -> str:
        """Name a unit as the task does."""
        return self._task.describe(unit)
