"""One worker, wherever it runs: what it counts, and how what goes wrong in it is told."""

import os
import re
from pathlib import Path

import pytest

from ragray.errors import ArtifactError, InputError, RagrayError, unpack
from ragray.execute.worker import MAX_DEATHS, Job, Outcome, Worker, crash_marker_folder
from tests.execute.tasks import WriteFiles


def outcomes(folder: Path, units: list[str], *args: str) -> list[Outcome]:
    worker = Worker(Job(WriteFiles, folder, args, folder / "markers"))
    return [worker.attempt(unit) for unit in units]


def test_units_are_done_and_counted(tmp_path: Path) -> None:
    done = outcomes(tmp_path, ["a", "bcd"])
    assert [(one.count, one.kind) for one in done] == [(1, ""), (3, "")]
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == ["a.txt", "bcd.txt"]


@pytest.mark.parametrize(
    ("suffix", "unit", "kind", "message"),
    [
        (".txt", "odd", InputError, "odd: cannot be written"),
        (".txt", "full", ArtifactError, "{folder}: disk full ("),
        (".txt", "broken", RagrayError, "{folder}: ValueError: no such unit (at tasks.py:"),
        ("", "a", InputError, "no suffix"),
    ],
)
def test_an_error_is_told_and_the_next_unit_is_done(
    tmp_path: Path, suffix: str, unit: str, kind: type[RagrayError], message: str
) -> None:
    first, second = outcomes(tmp_path, [unit, "b"], suffix)
    error = unpack(first.kind, first.message)
    assert type(error) is kind and str(error).startswith(message.format(folder=tmp_path))
    assert (second.kind == "") is bool(suffix)


def in_a_child(folder: Path, unit: str, *args: str) -> bool:
    """Do a unit in a process of its own, as executors do; return whether the process lived."""
    if not (child := os.fork()):
        outcomes(folder, [unit], *args)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("unit", "suffix", "named"), [("deadly", ".txt", "deadly"), ("a", "deadly", "loading what a unit")]
)
def test_a_unit_that_kills_every_process_is_given_up_and_named(
    tmp_path: Path, unit: str, suffix: str, named: str
) -> None:
    for _ in range(MAX_DEATHS):
        assert not in_a_child(tmp_path, unit, suffix)
    [done] = outcomes(tmp_path, [unit], suffix)
    assert re.search(rf"^{tmp_path}: {MAX_DEATHS} processes died .* over this: {named}", done.message)


def test_a_unit_that_others_died_beside_is_done(tmp_path: Path) -> None:
    for _ in range(MAX_DEATHS):
        in_a_child(tmp_path, "deadly")
    assert outcomes(tmp_path, ["a"])[0].kind == ""


def test_the_markers_of_a_run_are_removed_with_those_that_killed_runs_left(tmp_path: Path) -> None:
    with crash_marker_folder(tmp_path) as first, crash_marker_folder(tmp_path) as second:
        assert first != second
        for folder in (first, second):
            folder.mkdir(parents=True)
    assert not list(tmp_path.iterdir())
