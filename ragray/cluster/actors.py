"""A stage's work on a pool of Ray Data actors. In: units of work. Out: what each came to; an error on purpose arrives as it was raised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Generic, TypeVar

import numpy as np

from ragray.errors import ArtifactError, RagrayError, pack, unpack

MAX_TASKS = 4096
"""Units are handed out in so many tasks at most, each of several neighbouring units if there are more."""

COLUMNS = ("count", "seconds", "kind", "message")

U = TypeVar("U")


class UnitActor(ABC, Generic[U]):
    """One actor, which writes what it makes of a unit below ``folder``."""

    def __init__(self, folder: str, *args: Any) -> None:
        self.folder = Path(folder)
        self._failure: RagrayError | None = None
        try:
            self.set_up(*args)
        except (RagrayError, OSError) as err:  # raised here it would start the actor again and again
            self._failure = self._told(err)

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

    def _attempt(self, unit: U) -> tuple[int, float, RagrayError | None]:
        started, count, failure = monotonic(), 0, self._failure
        if failure is None:
            try:
                count = self.do(unit)
            except (RagrayError, OSError) as err:
                failure = self._told(err)
        return count, monotonic() - started, failure

    def _told(self, error: RagrayError | OSError) -> RagrayError:
        if isinstance(error, RagrayError):
            return error
        return ArtifactError(f"{self.folder}: cannot be read or written ({error}); mend that and run again")


def run_units(
    actor: type[UnitActor[U]],
    units: Sequence[U],
    folder: Path,
    *args: Any,
    num_actors: int,
    num_cpus: float,
    num_gpus: float = 0,
) -> Iterator[tuple[int, float]]:
    """Do units on a pool of actors, each made of ``folder`` and ``args``; yield what each counts and its seconds, as they end.

    Raises:
        RagrayError: what an actor raised on purpose, with the message that it had there.
    """
    import ray.data

    items = ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=min(len(units), MAX_TASKS))
    results = items.map_batches(
        actor,
        fn_constructor_args=(str(folder.resolve()), *args),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(num_actors, len(units))),
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
    )
    for row in results.iter_rows():
        if row["kind"]:
            raise unpack(row["kind"], row["message"])
        yield int(row["count"]), float(row["seconds"])
