"""Work on a Ray cluster. In: a task and units of work. Out: the units, as they are finished, by a pool of actors or a task for each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ragray.cluster.failures import cause
from ragray.cluster.resources import Want, require
from ragray.cluster.session import session
from ragray.execute.port import Finished, Resources, Task
from ragray.execute.worker import MAX_DEATHS, Job, Outcome, Worker, crash_marker_folder
from ragray.failures import told
from ragray.jsontext import to_json

MAX_TASKS = 4096
"""Units are handed to actors in so many tasks at most, each of several neighbouring units if there are more."""

COLUMNS = ("count", "seconds", "kind", "message")

U = TypeVar("U")


class RayExecutor:
    """Does units on the cluster that `session` joins or starts, once there are units to do.

    They stream through a pool of Ray Data actors; where each reserves memory of its own, each is a Ray task.
    """

    def __init__(self, address: str | None = None, *, wait_s: float) -> None:
        """Take the cluster's address, and the longest wait for the first worker's room, in seconds."""
        self._address = address
        self._wait_s = wait_s

    @contextlib.contextmanager
    def map(
        self, task: type[Task[U]], units: Sequence[U], folder: Path, *args: Any, stage: str, resources: Resources
    ) -> Iterator[Iterator[Finished]]:
        """See `ragray.execute.port.Executor.map`.

        Raises:
            ClusterError: there is no cluster, or it has no room for a single worker.
        """
        if not units:
            yield iter(())
            return
        count, what = min(resources.num_workers, len(units)), "task" if resources.memory_bytes else "actor"
        want = Want(what, count, resources.settings, resources.cpus, resources.gpus, together=1)
        with session(self._address), crash_marker_folder(folder.resolve()) as markers:
            require(stage, [want], wait_s=self._wait_s)
            job = Job(task, folder.resolve(), args, markers)
            outcomes = _as_tasks(job, units, resources) if resources.memory_bytes else _on_actors(job, units, want)
            with contextlib.closing(_in_one_line(outcomes, folder)) as told_outcomes:
                yield (Finished(one.count, one.seconds, count, one.warnings) for one in told_outcomes)


class TaskActor:
    """One actor of a pool: a `Worker`."""

    def __init__(self, job: Job[Any]) -> None:
        self._worker = Worker(job)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Do the units of a batch; return what each came to."""
        outcomes = [self._worker.attempt(unit) for unit in batch["unit"]]
        columns = {name: np.array([getattr(one, name) for one in outcomes]) for name in COLUMNS}
        return {**columns, "warnings": np.array([to_json(one.warnings, "warnings") for one in outcomes])}


def _on_actors(job: Job[U], units: Sequence[U], want: Want) -> Iterator[Outcome]:
    import ray.data

    items = ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=min(len(units), MAX_TASKS))
    results = items.map_batches(
        type(job.task.__name__, (TaskActor,), {}),  # its name is the title of the processes
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=want.count),
        num_cpus=want.cpus,
        num_gpus=want.gpus or None,
    )
    for row in results.iter_rows():
        warnings = tuple((kind, first, int(count)) for kind, first, count in json.loads(row["warnings"]))
        yield Outcome(int(row["count"]), float(row["seconds"]), row["kind"], row["message"], warnings).require()


def _as_tasks(job: Job[U], units: Sequence[U], resources: Resources) -> Iterator[Outcome]:
    """Do every unit in a task of its own; a task whose process dies is tried again, until the `Worker` gives it up."""
    import ray

    shared, room = ray.put(job), _memory_of_a_node()
    task = ray.remote(_do)
    options = {"name": job.task.__name__, "num_cpus": resources.cpus, "max_retries": MAX_DEATHS}
    waiting = [
        task.options(memory=min(memory, room), **options).remote(shared, unit)
        for unit, memory in zip(units, resources.memory_bytes, strict=True)
    ]
    try:
        while waiting:
            [ready], waiting = ray.wait(waiting, num_returns=1)
            outcome: Outcome = ray.get(ready)
            yield outcome.require()
    finally:
        for unfinished in waiting:
            ray.cancel(unfinished, force=True)


def _do(job: Job[U], unit: U) -> Outcome:
    return Worker(job).attempt(unit)


def _in_one_line(outcomes: Iterator[Outcome], folder: Path) -> Generator[Outcome, None, None]:
    from ray.exceptions import RayError

    try:
        yield from outcomes
    except RayError as err:
        raise told(cause(err), folder) from err


def _memory_of_a_node() -> int:
    """Return the memory, in bytes, that one task can reserve at most: that of the largest node."""
    import ray

    return int(max(node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]))
