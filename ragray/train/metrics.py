"""Metrics of a run. In: finished steps. Out: `metrics.jsonl`, and what trackers keep; a resumed run goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ragray.artifact.files import atomic_path
from ragray.jsontext import to_json
from ragray.train.trackers import open_trackers

METRICS_FILE = "metrics.jsonl"
PLACES = 6
"""Decimal places of the numbers in a line."""


def read_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines written so far; a last line that is only half there is left out."""
    path = folder / METRICS_FILE
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


class MetricsTail:
    """Reads only the lines that were written since the last time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / METRICS_FILE
        self._file = 0
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the whole lines that are new, all of them where a resumed run has replaced the file."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self._file or found.st_size < self._offset:
                    self._file, self._offset = found.st_ino, 0
                file.seek(self._offset)
                whole, end, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._offset += len(whole) + len(end)
        return [json.loads(line) for line in whole.splitlines()]


class MetricsLog:
    """Appends lines of metrics; lines after ``start_step`` (from before a crash) are dropped first. ``trackers`` are those named."""

    def __init__(self, folder: Path, start_step: int, trackers: Sequence[str] = ()) -> None:
        kept = [line for line in read_metrics(folder) if line["step"] <= start_step]
        with atomic_path(folder / METRICS_FILE) as path:
            path.write_text("".join(to_json(line, METRICS_FILE) + "\n" for line in kept), encoding="utf-8")
        self._file = (folder / METRICS_FILE).open("a", encoding="utf-8")
        self._trackers = open_trackers(folder, start_step, trackers)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        for tracker in self._trackers:
            tracker.close()

    def write(self, step: int, **values: float | str) -> None:
        """Write one line, flushed, and pass the same numbers to the trackers."""
        numbers = {name: round(value, PLACES) for name, value in values.items() if not isinstance(value, str)}
        line = {"step": step, **values, **numbers}
        self._file.write(to_json(line, f"{METRICS_FILE}, step {step}") + "\n")
        self._file.flush()
        for tracker in self._trackers if numbers else ():  # a failed validation has none
            tracker.log(step, numbers)
