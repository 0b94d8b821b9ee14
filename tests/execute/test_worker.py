"""One worker, wherever it runs: what it counts, and how what goes wrong in it is told."""

import logging
import os
import re
from pathlib import Path

import pytest

from ragray.errors import ArtifactError, InputError, RagrayError, unpack
from ragray.execute.inline import InlineExecutor
from ragray.execute.port import Executor, Resources, run_task
from ragray.execute.processes import ProcessExecutor
from ragray.execute.worker import MAX_DEATHS, Job, Outcome, Worker, crash_marker_folder
from ragray.execute.worker_warnings import Warned, caught_warnings
from tests.execute.tasks import WriteFiles


def outcomes(folder: Path, units: list[str], *args: str) -> list[Outcome]:
    worker = Worker(Job(WriteFiles, folder, args, folder / "markers"))
    return [worker.attempt(unit) for unit in units]


def test_units_are_done_and_counted(tmp_path: Path) -> None:
    done = outcomes(tmp_path, ["a", "bcd"])
    assert [(one.count, one.kind) for one in done] == [(1, ""), (3, "")]
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == ["a.txt", "bcd.txt"]


def test_warnings_go_with_the_unit_and_not_into_the_log_of_the_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, odd = outcomes(tmp_path, ["a", "odd b"])
    assert plain.warnings == () and caplog.records == []
    assert odd.warnings == (("%s: looks odd", "odd b: looks odd", 1),)
    logging.getLogger("ragray").warning("after the unit")
    assert [record.getMessage() for record in caplog.records] == ["after the unit"]


def test_a_warning_of_a_file_whose_name_is_not_utf8_can_travel() -> None:
    found: list[Warned] = []
    with caught_warnings(found):
        logging.getLogger("ragray").warning("%s: looks odd", "\udce9.txt")
    assert found == [("%s: looks odd", "\\udce9.txt: looks odd", 1)]


@pytest.mark.parametrize("executor", [InlineExecutor(), ProcessExecutor()], ids=["inline", "processes"])
def test_a_kind_of_warning_is_told_once_with_the_number_of_the_others(
    executor: Executor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    units = ["a", "odd 1", "odd 2", "b", "odd 3"]
    run_task(executor, WriteFiles, units, tmp_path, stage="test", total=20, counted="letters", resources=Resources(1))
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == ["odd 1: looks odd", "odd 1: looks odd (and 2 more like this)"]


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
