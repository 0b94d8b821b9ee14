"""Large files of an artefact are read when it is first opened, and again only when they were touched."""

import os
from pathlib import Path

import pytest

from ragray.artifact.manifest import CHECKED_NAME, CHECKSUM_ON_OPEN_BYTES, open_artifact, publish
from ragray.errors import CorruptArtifactError

PART = Path("passages") / "part-0.parquet"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An artefact with a file that is just large enough (all of it but a few bytes is a hole); nobody has read it again."""
    folder = tmp_path / "corpus"
    (folder / PART).parent.mkdir(parents=True)
    (folder / PART).write_bytes(b"four passages")
    os.truncate(folder / PART, CHECKSUM_ON_OPEN_BYTES + 1)
    publish(folder, kind="corpus", fingerprint="f1", facts={}, files=[folder / PART])
    (folder / CHECKED_NAME).unlink()
    return folder


def change(path: Path, *, times: os.stat_result | None = None) -> None:
    """Write other bytes in place; with ``times``, as if nothing had been written: only who reads the file can see it."""
    with path.open("r+b") as stream:
        stream.write(b"five")
    if times:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_large_file_is_read_when_it_is_first_opened(large: Path) -> None:
    change(large / PART, times=(large / PART).stat())
    with pytest.raises(CorruptArtifactError, match="content differs"):
        open_artifact(large, "corpus")


def test_a_large_file_is_read_once_and_again_when_it_was_touched(large: Path) -> None:
    open_artifact(large, "corpus")
    change(large / PART, times=(large / PART).stat())
    assert open_artifact(large, "corpus").fingerprint == "f1"
    with pytest.raises(CorruptArtifactError, match="content differs"):
        open_artifact(large, "corpus", full=True)
    (large / PART).touch()
    with pytest.raises(CorruptArtifactError, match="content differs"):
        open_artifact(large, "corpus")


def test_a_large_file_that_was_touched_and_found_whole_is_not_read_again(large: Path) -> None:
    open_artifact(large, "corpus")
    (large / PART).touch()
    open_artifact(large, "corpus")
    change(large / PART, times=(large / PART).stat())
    assert open_artifact(large, "corpus").fingerprint == "f1"


def test_a_large_file_that_was_just_published_is_not_read_again(large: Path) -> None:
    publish(large, kind="corpus", fingerprint="f1", facts={}, files=[large / PART])
    change(large / PART, times=(large / PART).stat())
    assert open_artifact(large, "corpus").fingerprint == "f1"


@pytest.mark.parametrize("known", [True, False])
def test_a_large_file_whose_content_changed_is_found(large: Path, known: bool) -> None:
    if known:
        open_artifact(large, "corpus")
    change(large / PART)
    for full in (False, True):
        with pytest.raises(CorruptArtifactError, match="content differs"):
            open_artifact(large, "corpus", full=full)


def test_a_large_file_that_another_one_replaced_is_found_even_if_its_time_is_the_same(large: Path) -> None:
    open_artifact(large, "corpus")
    path, other = large / PART, large / "other"
    other.write_bytes(b"five passages")
    os.truncate(other, path.stat().st_size)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    with pytest.raises(CorruptArtifactError, match="content differs"):
        open_artifact(large, "corpus")


@pytest.mark.parametrize("text", ["", "[]", '{"passages/part-0.parquet": 3}', "\x00"])
def test_what_was_read_before_is_a_cache_that_may_be_damaged(large: Path, text: str) -> None:
    (large / CHECKED_NAME).write_text(text)
    assert open_artifact(large, "corpus").fingerprint == "f1"


def test_what_was_read_before_is_a_cache_that_may_be_unreadable_and_unwritable(large: Path) -> None:
    (large / CHECKED_NAME).mkdir()  # also to the superuser
    for _ in range(2):
        assert open_artifact(large, "corpus").fingerprint == "f1"
    assert (large / CHECKED_NAME).is_dir()
