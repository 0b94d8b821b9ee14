"""Writes segments as Ray tasks. In: which ones, how one is written, the trained empty index. Out: their folders, in parallel."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import faiss
import numpy as np

from ragray.cluster.failures import cause
from ragray.cluster.resources import Want, require
from ragray.errors import ArtifactError
from ragray.failures import told
from ragray.index.store.segment import Segment
from ragray.index.store.snapshot import SEGMENTS
from ragray.progress import Progress

ROW_BYTES = 1024
"""Memory that a row takes while its segment is built, beside its vector in float32: ids, postings, Arrow's buffers."""


class Part(Protocol):
    """A segment to write."""

    @property
    def name(self) -> str:
        """Its folder."""

    @property
    def num_rows(self) -> int:
        """Its rows."""


P = TypeVar("P", bound=Part)


def is_written(index: Path, part: Part, dim: int) -> bool:
    """Say whether an earlier run wrote this very segment, and it is whole."""
    try:
        Segment.open(index / SEGMENTS / part.name, num_rows=part.num_rows, dim=dim)
    except ArtifactError:
        return False
    return True


def write_as_tasks(
    parts: Sequence[P],
    write: Callable[[P, faiss.Index], None],
    index: Path,
    empty: np.ndarray,
    progress: Progress,
    *,
    stage: str,
    wait_s: float,
) -> None:
    """Call ``write`` for every part in a task of its own, each with its own copy of the empty index (``empty``: serialised).

    What tasks that were killed left half-written is removed first. A task whose process dies is tried again three times; an error
    on purpose is raised here as it was there, and any other in one line.
    """
    import ray
    from ray.exceptions import RayError

    require(stage, [Want("task", len(parts), (), cpus=1, together=1)], wait_s=wait_s)
    for litter in (index / SEGMENTS).glob(".*.tmp"):
        shutil.rmtree(litter, ignore_errors=True)
    empty_bytes, dim = ray.put(empty), faiss.deserialize_index(empty).d
    task, room = ray.remote(_write), _memory_of_a_node()
    waiting = {
        task.options(memory=min(part.num_rows * (4 * dim + ROW_BYTES), room)).remote(write, part, empty_bytes): part
        for part in parts
    }
    try:
        while waiting:
            [ready], _ = ray.wait(list(waiting), num_returns=1)
            ray.get(ready)
            progress.advance(waiting.pop(ready).num_rows)
    except RayError as err:
        raise told(cause(err), index) from err
    finally:
        for unfinished in waiting:
            ray.cancel(unfinished, force=True)


def _memory_of_a_node() -> int:
    """Return the memory, in bytes, that one task can reserve at most: that of the largest node."""
    import ray

    return int(max(node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]))


def _write(write: Callable[[P, faiss.Index], None], part: P, empty_bytes: np.ndarray) -> None:
    write(part, faiss.deserialize_index(empty_bytes.copy()))
