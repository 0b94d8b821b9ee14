"""A stage's work on a pool of Ray Data actors. In: units of work. Out: what each came to; an error on purpose arrives as it was raised."""

from __future__ import annotations

import contextlib
import logging
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Generic, TypeVar

import numpy as np

from ragray.artifact.digest import fingerprint
from ragray.cluster.failures import cause
from ragray.cluster.resources import Want, require
from ragray.errors import RagrayError, pack, unpack
from ragray.execute.crash_markers import Attempts
from ragray.failures import told

MAX_TASKS = 4096
"""Units are handed out in so many tasks at most, each of several neighbouring units if there are more."""

MAX_DEATHS = 3
"""Processes that may die over one unit, or as they load what it needs, before it is given up: Ray would start new ones for ever."""

TRIES_FOLDER = ".tries"

COLUMNS = ("count", "seconds", "kind", "message")

U = TypeVar("U")

logger = logging.getLogger("ragray")


class UnitActor(ABC, Generic[U]):
    """One actor, which writes what it makes of a unit below ``folder``; ``tries`` is where deaths over units are counted."""

    counts_deaths = False
    """True where `do` itself finds out what kills the process."""

    def __init__(self, folder: str, *args: Any, tries: str = "") -> None:
        self.folder = Path(folder)
        self._args = args
        self._tries = Attempts(Path(tries or self.folder / TRIES_FOLDER))
        self._is_set_up = False
        self._failure: RagrayError | None = None

    @abstractmethod
    def set_up(self, *args: Any) -> None:
        """Load what all units need."""

    @abstractmethod
    def do(self, unit: U) -> int:
        """Do one unit, again if need be: a dead actor's units are handed out anew. Return what it counts in the progress."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Do the units of a batch; return what each counts, its seconds, and its error's kind and message, if there was one."""
        counts, seconds, failures = zip(*(self._attempt(unit) for unit in batch["unit"]), strict=True)
        kinds, messages = zip(*map(pack, failures), strict=True)
        return dict(zip(COLUMNS, map(np.array, (counts, seconds, kinds, messages)), strict=True))

    def describe(self, unit: U) -> str:
        """Name a unit in a message."""
        return str(getattr(unit, "name", unit))

    def _attempt(self, unit: U) -> tuple[int, float, RagrayError | None]:
        started, count, failure = monotonic(), 0, self._failure
        try:
            if failure is None and not self._is_set_up:
                with self._counted(f"set-up-{fingerprint(repr(unit))}", "loading what a unit of work needs"):
                    self._set_up()
                started, failure = monotonic(), self._failure
            if failure is None:
                with self._counted(
                    "" if self.counts_deaths else f"unit-{fingerprint(repr(unit))}", self.describe(unit)
                ):
                    count = self.do(unit)
        except Exception as err:
            failure = self._told(err)
        return count, monotonic() - started, failure

    def _set_up(self) -> None:
        """Set up once; what goes wrong is the error of every unit, for it would go wrong again."""
        try:
            self.set_up(*self._args)
        except Exception as err:
            self._failure = self._told(err)
        self._is_set_up = True

    @contextlib.contextmanager
    def _counted(self, name: str, what: str) -> Iterator[None]:
        """Leave a marker behind if the process dies in the block; with `MAX_DEATHS` markers, raise instead of trying again."""
        if not name:
            yield
            return
        deaths = self._tries.deaths(name).count
        if deaths >= MAX_DEATHS:
            raise RagrayError(
                f"{self.folder}: {deaths} processes died one after the other over this: {what}; look for a crash or for too "
                "little memory in Ray's logs, leave it out or give it more memory, then run again"
            )
        with self._tries.begin(name):
            yield

    def _told(self, error: Exception) -> RagrayError:
        if not isinstance(error, RagrayError):
            logger.error(
                "%s: a unit of work failed", self.folder, exc_info=error
            )  # the worker's log keeps the traceback
        return told(cause(error), self.folder)


def run_units(
    actor: type[UnitActor[U]],
    units: Sequence[U],
    folder: Path,
    *args: Any,
    stage: str,
    want: Want,
    wait_s: float,
) -> Iterator[tuple[int, float]]:
    """Do units on a pool of actors, each made of ``folder`` and ``args``; yield what each counts and its seconds, as they end.

    Where the cluster has no room for all of ``want``, fewer work at a time; ``wait_s``: the longest wait for the first.

    Raises:
        ClusterError: the cluster has no room for a single actor.
        RagrayError: what an actor raised on purpose, with the message that it had there; or one line for anything else.
    """
    import ray.data
    from ray.exceptions import RayError

    require(stage, [want], wait_s=wait_s)
    tries = folder.resolve() / TRIES_FOLDER / uuid.uuid4().hex[:8]

    items = ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=min(len(units), MAX_TASKS))
    results = items.map_batches(
        actor,
        fn_constructor_args=(str(folder.resolve()), *args),
        fn_constructor_kwargs={"tries": str(tries)},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(want.count, len(units))),
        num_cpus=want.cpus,
        num_gpus=want.gpus or None,
    )
    try:
        for row in results.iter_rows():
            if row["kind"]:
                raise unpack(row["kind"], row["message"])
            yield int(row["count"]), float(row["seconds"])
    except RayError as err:
        raise told(cause(err), folder) from err
    finally:
        shutil.rmtree(tries.parent, ignore_errors=True)
