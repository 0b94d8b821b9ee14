"""Work in this very process: for tests and tiny inputs. In: a task and units of work. Out: the units, as they are finished."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ragray.execute.port import Finished, Resources, Task
from ragray.execute.worker import Job, Worker

U = TypeVar("U")


class InlineExecutor:
    """Does units one after the other; a unit that kills the process kills this one."""

    @contextlib.contextmanager
    def map(
        self, task: type[Task[U]], units: Sequence[U], folder: Path, *args: Any, stage: str, resources: Resources
    ) -> Iterator[Iterator[Finished]]:
        """See `ragray.execute.port.Executor.map`; ``resources`` are what this process has."""
        worker = Worker(Job(task, folder.resolve(), args))
        outcomes = (worker.attempt(unit).require() for unit in units)
        yield (Finished(outcome.count, outcome.seconds, 1, outcome.warnings) for outcome in outcomes)
