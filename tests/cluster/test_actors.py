"""One actor of a pool, without Ray: what it counts, and how what goes wrong in it is told."""

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest

from ragray.cluster.actors import MAX_DEATHS, UnitActor
from ragray.errors import ArtifactError, InputError, RagrayError, unpack


class Writer(UnitActor[str]):
    """Writes a file for every unit, and complains of some."""

    def set_up(self, suffix: str) -> None:
        if not suffix:
            raise InputError("no suffix")
        self.suffix = suffix

    def do(self, unit: str) -> int:
        if unit == "odd":
            raise InputError(f"{unit}: cannot be written")
        if unit == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if unit == "broken":
            raise ValueError("no such unit\nand a second line")
        (self.folder / (unit + self.suffix)).touch()
        return len(unit)


def test_units_are_done_and_counted(tmp_path: Path) -> None:
    done = Writer(str(tmp_path), ".txt")({"unit": np.array(["a", "bcd"], dtype=object)})
    assert (done["count"].tolist(), done["kind"].tolist()) == ([1, 3], ["", ""])
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == ["a.txt", "bcd.txt"]


@pytest.mark.parametrize(
    ("suffix", "unit", "kind", "message"),
    [
        (".txt", "odd", InputError, "odd: cannot be written"),
        (
            ".txt",
            "full",
            ArtifactError,
            "{folder}: disk full (",
        ),
        (".txt", "broken", RagrayError, "{folder}: ValueError: no such unit (at test_actors.py:"),
        ("", "a", InputError, "no suffix"),
    ],
)
def test_an_error_is_told_and_the_next_unit_is_done(
    tmp_path: Path, suffix: str, unit: str, kind: type[RagrayError], message: str
) -> None:
    actor = Writer(str(tmp_path), suffix)
    done = actor({"unit": np.array([unit, "b"], dtype=object)})
    error = unpack(done["kind"][0], done["message"][0])
    assert type(error) is kind and str(error).startswith(message.format(folder=tmp_path))
    assert (done["kind"][1] == "") is bool(suffix)


class Deadly(UnitActor[str]):
    """Kills its process over some units, or before it can do any."""

    def set_up(self, dies: bool) -> None:
        if dies:
            os._exit(3)

    def do(self, unit: str) -> int:
        if unit == "deadly":
            os._exit(3)
        return 1


def in_a_child(folder: Path, unit: str, dies: bool) -> bool:
    """Do a unit in a process of its own, as Ray does; say whether the process lived."""
    if not (child := os.fork()):
        Deadly(str(folder), dies)({"unit": np.array([unit], dtype=object)})
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(("unit", "dies", "named"), [("deadly", False, "deadly"), ("a", True, "loading what a unit")])
def test_a_unit_that_kills_every_process_is_given_up_and_named(
    tmp_path: Path, unit: str, dies: bool, named: str
) -> None:
    for _ in range(MAX_DEATHS):
        assert not in_a_child(tmp_path, unit, dies)
    done = Deadly(str(tmp_path), dies)({"unit": np.array([unit], dtype=object)})
    assert re.search(rf"^{tmp_path}: {MAX_DEATHS} processes died .* over this: {named}", done["message"][0])


def test_a_unit_that_others_died_beside_is_done(tmp_path: Path) -> None:
    for _ in range(MAX_DEATHS):
        in_a_child(tmp_path, "deadly", False)
    assert Deadly(str(tmp_path), False)({"unit": np.array(["a"], dtype=object)})["kind"].tolist() == [""]
