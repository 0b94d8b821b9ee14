"""A worker, wherever it runs. In: a task and units of work. Out: what each came to: a count, or an error on purpose as it was raised."""

from __future__ import annotations

import contextlib
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Generic, TypeVar

from ragray.artifact.digest import fingerprint
from ragray.errors import RagrayError, pack, unpack
from ragray.execute.crash_markers import CrashMarkers
from ragray.execute.port import Task
from ragray.execute.worker_warnings import Warned, caught_warnings
from ragray.failures import told

MAX_DEATHS = 3
"""Processes that may die over one unit, or as they load what it needs, before it is given up."""

MARKER_FOLDER = ".tries"

U = TypeVar("U")

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class Job(Generic[U]):
    """What a worker is made of; crash markers are kept below ``markers``, and none without it."""

    task: type[Task[U]]
    folder: Path
    args: tuple[Any, ...]
    markers: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a unit came to, in a form that any process can read: ``kind`` and ``message`` of an error, both empty without one."""

    count: int
    seconds: float
    kind: str
    message: str
    warnings: tuple[Warned, ...] = ()

    def require(self) -> Outcome:
        """Return this; raise the error, if there is one."""
        if self.kind:
            raise unpack(self.kind, self.message)
        return self


class Worker(Generic[U]):
    """Sets its task up before the first unit; what goes wrong there is the error of every unit, for it would go wrong again."""

    def __init__(self, job: Job[U]) -> None:
        self._job = job
        self._markers = CrashMarkers(job.markers) if job.markers else None
        self._task: Task[U] | None = None
        self._failure: RagrayError | None = None

    def attempt(self, unit: U, *, on_begin: Callable[[], None] = lambda: None) -> Outcome:
        """Do a unit and never raise; ``on_begin`` is called when the task is set up."""
        started, count, failure = monotonic(), 0, self._failure
        warnings: list[Warned] = []
        try:
            if not failure:
                task = self._task or self._made(unit)
                on_begin()
                started = monotonic()
                key = "" if task.counts_deaths else f"unit-{fingerprint(repr(unit))}"
                with self._counted(key, task.describe(unit)), caught_warnings(warnings):
                    count = task.do(unit)
        except Exception as err:
            failure = self._told(err)
        kind, message = pack(failure)
        return Outcome(count, monotonic() - started, kind, message, tuple(warnings))

    def _made(self, unit: U) -> Task[U]:
        """Make the task and set it up."""
        with self._counted(f"set-up-{fingerprint(repr(unit))}", "loading what a unit of work needs"):
            try:
                task = self._job.task(self._job.folder)
                task.set_up(*self._job.args)
            except Exception as err:
                self._failure = self._told(err)
                raise self._failure from err
        self._task = task
        return task

    @contextlib.contextmanager
    def _counted(self, name: str, what: str) -> Iterator[None]:
        """Leave a marker behind if the process dies in the block; with `MAX_DEATHS` markers, raise instead of trying again."""
        if not name or not self._markers:
            yield
            return
        deaths = self._markers.deaths(name).count
        if deaths >= MAX_DEATHS:
            raise RagrayError(
                f"{self._job.folder}: {deaths} processes died one after the other over this: {what}; look for a crash or for too "
                "little memory (a cluster keeps its workers' logs), leave it out or give it more memory, then run again"
            )
        with self._markers.begin(name):
            yield

    def _told(self, error: Exception) -> RagrayError:
        if not isinstance(error, RagrayError):
            # the worker's log keeps the traceback
            logger.error("%s: a unit of work failed", self._job.folder, exc_info=error)
        return told(error, self._job.folder)


@contextlib.contextmanager
def crash_marker_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder below ``folder`` for the markers of one run; remove it in the end, and what killed runs left of theirs."""
    markers = folder / MARKER_FOLDER / uuid.uuid4().hex[:8]
    try:
        yield markers
    finally:
        shutil.rmtree(markers.parent, ignore_errors=True)
