"""What was in hand when a process died. In: the block that is begun, the passage that is tried. Out: how often each was fatal.

Whoever embeds a block leaves a marker on disk and removes it when the block is done or an error is reported; only a process
that died left its marker behind. The markers outlive every process and are on disk at once, so that a passage which takes the
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
    """How many processes died over a block, and over which of its rows where that is known."""

    count: int
    rows: Counter[int]


class Attempts:
    """The markers of one embeddings folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / ATTEMPT_FOLDER

    def deaths(self, name: str) -> Deaths:
        """Count the markers of a block that nobody removed; ask before beginning it."""
        held = [path.read_text(encoding="ascii", errors="replace") for path in self._folder.glob(f"{name}.*")]
        return Deaths(len(held), Counter(int(row) for row in held if row.isdecimal()))

    @contextlib.contextmanager
    def begin(self, name: str) -> Iterator[Attempt]:
        """Mark a block as being worked on until the block of code ends, however it ends, unless the process does."""
        self._folder.mkdir(parents=True, exist_ok=True)
        marker = self._folder / f"{name}.{uuid.uuid4().hex[:8]}"
        write_through(marker, "")
        try:
            yield Attempt(marker)
        finally:
            marker.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One marker."""

    marker: Path

    def hold(self, row: int) -> None:
        """Say which row is tried next."""
        write_through(self.marker, str(row))
