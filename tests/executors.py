"""Executors for tests: one that may not be used, and some that interfere with another one's work."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragray.execute.inline import InlineExecutor
from ragray.execute.port import Executor, Finished, Resources, Task

INLINE = InlineExecutor()


class Unused:
    """Lets no unit be done: for runs that must find everything done already, or fail before any work starts."""

    @contextmanager
    def map(
        self, task: type[Task[Any]], units: Sequence[Any], folder: Path, *args: Any, stage: str, resources: Resources
    ) -> Iterator[Iterator[Finished]]:
        raise AssertionError(f"{stage}: {len(units)} units were to be done")
        yield iter(())


UNUSED = Unused()


@dataclass(frozen=True)
class Interfering:
    """Calls ``first``, runs ``task`` in place of the stage's own, ends after ``stop_after`` units as Ctrl-C does, calls ``then``."""

    executor: Executor = INLINE
    task: type[Task[Any]] | None = None
    first: Callable[[], None] = lambda: None
    stop_after: int | None = None
    then: Callable[[Path], None] = lambda folder: None

    @contextmanager
    def map(
        self, task: type[Task[Any]], units: Sequence[Any], folder: Path, *args: Any, stage: str, resources: Resources
    ) -> Iterator[Iterator[Finished]]:
        self.first()
        with self.executor.map(self.task or task, units, folder, *args, stage=stage, resources=resources) as finished:
            yield self._until_stopped(finished)
        self.then(folder)

    def _until_stopped(self, finished: Iterator[Finished]) -> Iterator[Finished]:
        for number, unit in enumerate(finished, start=1):
            yield unit
            if number == self.stop_after:
                raise KeyboardInterrupt
