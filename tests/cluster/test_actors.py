"""One actor of a pool, without Ray: what it counts, and how what goes wrong in it is told."""

import errno
from pathlib import Path

import numpy as np
import pytest

from ragray.cluster.actors import UnitActor
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
        (self.folder / (unit + self.suffix)).touch()
        return len(unit)


def test_units_are_done_and_counted(tmp_path: Path) -> None:
    done = Writer(str(tmp_path), ".txt")({"unit": np.array(["a", "bcd"], dtype=object)})
    assert (done["count"].tolist(), done["kind"].tolist()) == ([1, 3], ["", ""])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "bcd.txt"]


@pytest.mark.parametrize(
    ("suffix", "unit", "kind", "message"),
    [
        (".txt", "odd", InputError, "odd: cannot be written"),
        (
            ".txt",
            "full",
            ArtifactError,
            "{folder}: cannot be read or written ([Errno 28] No space left on device); mend",
        ),
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
