"""Answers to requests for indexes: one at a time, the newest counts, and a disk that is full for a moment costs no answer."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ragray.errors import RagrayError
from ragray.train.refresh.exchange import IndexState, RefreshFolder, Reply, Request, read_state, write_state
from ragray.train.refresh.service import RefreshService


@dataclass
class Job:
    """An index that is made when ``snapshot`` is set, or fails when ``error`` is."""

    snapshot: str = ""
    error: str = ""
    cancelled: bool = False

    def result(self) -> str | None:
        if self.error:
            raise RagrayError(self.error)
        return self.snapshot or None

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Rig:
    """A service whose jobs do what a test says."""

    folder: RefreshFolder
    jobs: dict[int, Job] = field(default_factory=dict)
    prepared: list[str] = field(default_factory=list)
    kept: list[set[str]] = field(default_factory=list)

    def start(self, step: int) -> Job:
        self.jobs[step] = Job()
        return self.jobs[step]

    def prepare(self, snapshot: str) -> int:
        self.prepared.append(snapshot)
        return len(self.prepared)

    def service(self) -> RefreshService:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        return RefreshService(
            self.folder,
            start=self.start,
            prepare=self.prepare,
            keep=lambda names: self.kept.append(set(names)),
            served=(0, "first"),
        )


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(RefreshFolder(tmp_path / "refresh"))


def test_the_snapshot_that_is_open_is_answered_at_once_and_another_is_opened_first(rig: Rig) -> None:
    service = rig.service()
    for token, snapshot in (("a", "first"), ("b", "second"), ("c", "second"), ("d", "first")):
        rig.folder.ask(Request(token, snapshot=snapshot))
        service.turn()
    assert rig.prepared == ["second", "first"]
    assert rig.folder.answered("d") == Reply("d", 2, "first")
    assert rig.folder.answered("c") is None


def test_an_index_is_handed_over_when_it_is_made(rig: Rig) -> None:
    service = rig.service()
    rig.folder.ask(Request("a", 4))
    service.turn()
    service.turn()
    assert list(rig.jobs) == [4] and rig.folder.answered("a") is None
    rig.jobs[4].snapshot = "fourth"
    service.turn()
    assert rig.folder.answered("a") == Reply("a", 1, "fourth")


def test_a_newer_request_ends_what_was_begun_for_the_old_one(rig: Rig) -> None:
    service = rig.service()
    rig.folder.ask(Request("a", 4))
    service.turn()
    rig.folder.ask(Request("b", 8))
    service.turn()
    assert rig.jobs[4].cancelled and not rig.jobs[8].cancelled


def test_requests_of_a_process_that_is_gone_are_not_answered(rig: Rig) -> None:
    rig.folder.ask(Request("old", 4))
    rig.folder.answer(Reply("old", 3, "third"))
    rig.service().turn()
    assert not rig.jobs
    assert rig.folder.answered("old") is None


def test_a_failure_is_said_once_also_where_the_answer_cannot_be_written_at_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = [True, True, False]

    class Disk(RefreshFolder):
        def answer(self, reply: Reply) -> None:
            if full.pop(0):
                raise OSError(28, "No space left on device")
            super().answer(reply)

    rig = Rig(Disk(tmp_path / "refresh"))
    service = rig.service()
    rig.folder.ask(Request("a", 4))
    service.turn()
    rig.jobs[4].error = "it went wrong"
    for _ in range(4):
        service.turn()
    reply = rig.folder.answered("a")
    assert reply is not None and reply.error
    assert [
        record.getMessage().partition(" (")[0] for record in caplog.records if record.levelno == logging.WARNING
    ] == ["train: no index was made of step 4's weights"]


def test_weights_that_could_not_be_saved_are_a_failure_too(rig: Rig) -> None:
    service = rig.service()
    rig.folder.ask(Request("a", 4, error="disk full"))
    service.turn()
    service.turn()
    assert rig.folder.answered("a") == Reply("a", error="disk full")
    assert not rig.jobs


def test_what_checkpoints_name_is_kept(rig: Rig) -> None:
    """The index that each of them searched, and the weights of the refresh that was under way."""
    service = rig.service()
    state = IndexState(2, "second", pending=6)
    write_state(rig.folder.path.parent / "checkpoint_1", state)
    assert read_state(rig.folder.path.parent / "checkpoint_1") == state
    for step in (2, 4, 6, 8):
        rig.folder.weights(step).mkdir(parents=True)
    rig.folder.ask(Request("a", 8))
    service.turn()
    rig.jobs[8].snapshot = "eighth"
    service.turn()
    assert rig.kept[-1] == {"first", "second", "eighth"}
    assert sorted(path.name for path in rig.folder.path.glob("step-*")) == [f"step-0000000{n}" for n in (2, 6, 8)]
