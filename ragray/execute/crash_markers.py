"""Crash markers: which unit a process was working on when it died. In: the unit that is begun. Out: how many processes died over it.

A process writes a marker before it begins a unit and removes it when the unit is done or an error is reported. A marker that is
left over stands for a process that died. Markers are on disk at once and outlive every process, so that a unit which takes the
whole machine down is still found.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ragray.artifact.files import write_through

ATTEMPT_FOLDER = "attempts"


@dataclass(frozen=True, slots=True)
class Deaths:
    """How many processes died over a unit, and over which of its rows where that is known."""

    count: int
    rows: Counter[int]

    @property
    def rowless(self) -> int:
        """Deaths for which no row is known."""
        return self.count - self.rows.total()


class CrashMarkers:
    """The markers of one output folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / ATTEMPT_FOLDER

    def deaths(self, name: str) -> Deaths:
        """Count the markers of a unit that nobody removed; ask before beginning it."""
        held = [path.read_text(encoding="ascii", errors="replace") for path in self._folder.glob(f"{name}.*")]
        return Deaths(len(held), Counter(int(row) for row in held if row.isdecimal()))

    @contextlib.contextmanager
    def begin(self, name: str) -> Iterator[CrashMarker]:
        """Mark a unit as being worked on until the block of code ends, however it ends, unless the process does."""
        self._folder.mkdir(parents=True, exist_ok=True)
        marker = self._folder / f"{name}.{uuid.uuid4().hex[:8]}"
        write_through(marker, "")
        try:
            yield CrashMarker(marker)
        finally:
            marker.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class CrashMarker:
    """One marker."""

    marker: Path

    def hold(self, row: int) -> None:
        """Record which row is tried next."""
        write_through(self.marker, str(row))
