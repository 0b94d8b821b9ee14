"""Progress of long work. In: counts of finished units. Out: a bar on a terminal, a log line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

LOG_EVERY_S = 5.0
logger = logging.getLogger("ragray")


class Progress:
    """Counts finished units of one stage, on stderr.

    Use as a context manager: ``with Progress("embed", total=500, unit="passages") as progress: progress.advance(64)``.
    """

    def __init__(self, stage: str, *, total: int | None, unit: str) -> None:
        self.stage = stage
        self.total = total
        self.unit = unit
        self.done = 0
        self._started = self._logged = time.monotonic()
        self._bar: RichProgress | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(self.unit),
                TimeRemainingColumn(),
            )
            self._bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.stage, total=self.total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        if kind is None:
            self._log("done")

    @property
    def seconds(self) -> float:
        """Seconds since this stage began."""
        return time.monotonic() - self._started

    def advance(self, units: int = 1, note: str = "") -> None:
        """Add to the number of finished units."""
        self.done += units
        if self._bar:
            self._bar.update(self._task, completed=self.done, description=f"{self.stage} {note}".rstrip())
        elif self.done != self.total and time.monotonic() - self._logged >= LOG_EVERY_S:
            self._logged = time.monotonic()
            self._log(note)

    def _log(self, note: str) -> None:
        of = f"/{self.total}" if self.total else ""
        rate = self.done / max(self.seconds, 1e-9)
        logger.info("%s: %d%s %s, %.1f s, %.1f/s %s", self.stage, self.done, of, self.unit, self.seconds, rate, note)
