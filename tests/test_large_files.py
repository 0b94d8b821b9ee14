"""Large files of an artefact are read when it is first opened, and again only when they were touched."""

import os
from pathlib import Path

import pytest

from ragray.artifact import manifest
from ragray.artifact.digest import file_checksum
from ragray.artifact.manifest import CHECKED_NAME, open_artifact, publish
from ragray.errors import CorruptArtifactError


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artefact whose file of 13 bytes counts as large; nobody has read it since it was written."""
    path = tmp_path / "corpus" / "passages" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"four passages")
    publish(tmp_path / "corpus", kind="corpus", fingerprint="f1", facts={}, files=[path])
    monkeypatch.setattr(manifest, "CHECKSUM_ON_OPEN_BYTES", 12)
    return tmp_path / "corpus"


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with every file whose checksum is computed."""
    found: list[str] = []
    original = file_checksum
    monkeypatch.setattr(manifest, "file_checksum", lambda path: (found.append(path.name), original(path))[1])
    return found


def test_a_large_file_is_read_once_and_again_when_it_was_touched(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = reads(monkeypatch)
    for _ in range(3):
        open_artifact(large, "corpus")
    assert found.count("part-0.parquet") == 1
    (large / "passages" / "part-0.parquet").touch()
    open_artifact(large, "corpus")
    assert found.count("part-0.parquet") == 2
    open_artifact(large, "corpus", full=True)
    assert found.count("part-0.parquet") == 3


def test_a_large_file_that_was_just_published_is_not_read_again(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [large / "passages" / "part-0.parquet"]
    publish(large, kind="corpus", fingerprint="f1", facts={}, files=files)
    found = reads(monkeypatch)
    open_artifact(large, "corpus")
    assert found == []


@pytest.mark.parametrize("known", [True, False])
def test_a_large_file_whose_content_changed_is_found(large: Path, known: bool) -> None:
    if known:
        open_artifact(large, "corpus")
    (large / "passages" / "part-0.parquet").write_bytes(b"five passages")
    for full in (False, True):
        with pytest.raises(CorruptArtifactError, match="content differs"):
            open_artifact(large, "corpus", full=full)


def test_a_large_file_that_another_one_replaced_is_found_even_if_its_time_is_the_same(large: Path) -> None:
    open_artifact(large, "corpus")
    path, other = large / "passages" / "part-0.parquet", large / "other"
    other.write_bytes(b"five passages")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    with pytest.raises(CorruptArtifactError, match="content differs"):
        open_artifact(large, "corpus")


@pytest.mark.parametrize("text", ["", "[]", '{"passages/part-0.parquet": 3}', "\x00"])
def test_what_was_read_before_is_a_cache_that_may_be_damaged_or_unwritable(
    large: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (large / CHECKED_NAME).write_text(text)
    assert open_artifact(large, "corpus").fingerprint == "f1"
    (large / CHECKED_NAME).unlink()
    monkeypatch.setattr(manifest, "write_json", lambda *_: (_ for _ in ()).throw(PermissionError("read-only")))
    assert open_artifact(large, "corpus").fingerprint == "f1"
