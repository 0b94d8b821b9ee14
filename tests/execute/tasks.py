"""Tasks for tests of executors: they write files, and go wrong in every way that a unit can name."""

import errno
import logging
import os
import signal
import sys
import time

from ragray.errors import InputError
from ragray.execute.port import Task


class WriteFiles(Task[str]):
    """Writes a file for every unit, and complains of some, or dies over them."""

    def set_up(self, suffix: str = ".txt") -> None:
        print("a library prints as it is loaded")
        if not suffix:
            raise InputError("no suffix")
        if suffix == "deadly":
            sys.stderr.write("what it said before it died\n")
            os._exit(3)
        self.suffix = suffix

    def do(self, unit: str) -> int:
        print("a library prints as it works")
        if unit == "odd":
            raise InputError(f"{unit}: cannot be written")
        if unit == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if unit == "broken":
            raise ValueError("no such unit\nand a second line")
        if unit == "deadly":
            os._exit(3)
        if unit == "deadly once":
            self._die_once()
        if unit.startswith("odd "):
            logging.getLogger("ragray").warning("%s: looks odd", unit)
        if unit.startswith("slow"):
            time.sleep(0.05)
        with (self.folder / (unit + self.suffix)).open("x") as file:
            file.write(unit)
        return len(unit)

    def _die_once(self) -> None:
        marker = self.folder / "died"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Priority(Task[str]):
    """Counts the niceness of its process, and what it was set up with."""

    def set_up(self, more: int) -> None:
        self.more = more

    def do(self, unit: str) -> int:
        return self.more + os.nice(0)
