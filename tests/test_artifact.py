"""The folders that stages hand over: what makes one an artefact, what betrays a broken one, who may write it."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path, replace_folder
from ragray.artifact.kinds import MANIFEST_NAME
from ragray.artifact.lock import exclusive
from ragray.artifact.manifest import Manifest, is_current, open_artifact, publish, read_manifest, unpublish
from ragray.artifact.output import stage_output
from ragray.errors import ArtifactBusyError, ArtifactError, CorruptArtifactError, InputError, NotAnArtifactError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A finished artefact of two files."""
    folder = tmp_path / "corpus"
    (folder / "passages").mkdir(parents=True)
    files = [folder / "passages" / "part-0.parquet", folder / "quarantine.jsonl"]
    files[0].write_bytes(b"four passages")
    files[1].write_bytes(b"")
    publish(folder, kind="corpus", fingerprint="f1", facts={"num_passages": 4}, files=files)
    return folder


def change_manifest(folder: Path, **values: object) -> None:
    raw = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps(raw | values))


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def corruption(folder: Path, *, full: bool = False) -> str:
    with pytest.raises(CorruptArtifactError) as caught:
        open_artifact(folder, "corpus", full=full)
    return str(caught.value)


# What makes a folder an artefact.


def test_what_was_published_is_what_is_opened(corpus: Path) -> None:
    manifest = open_artifact(corpus, "corpus")
    assert (manifest.kind, manifest.fingerprint, manifest.facts) == ("corpus", "f1", {"num_passages": 4})
    assert [(entry.path, entry.num_bytes) for entry in manifest.files] == [
        ("passages/part-0.parquet", 13),
        ("quarantine.jsonl", 0),
    ]


def test_the_manifest_comes_last_so_a_file_that_is_not_there_yet_means_no_artefact(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        publish(tmp_path, kind="corpus", fingerprint="f", facts={}, files=[tmp_path / "unwritten.parquet"])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_manifest_is_refused_with_the_command_that_makes_it(corpus: Path) -> None:
    unpublish(corpus)
    with pytest.raises(NotAnArtifactError) as caught:
        read_manifest(corpus, "corpus")
    assert str(caught.value).startswith(f"{corpus}: no corpus here (it has no manifest.json, so it was never finished)")
    assert str(caught.value).endswith(f"run: ragray ingest SOURCE... --out {corpus}")


def test_a_folder_that_does_not_exist_is_refused_in_other_words(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifactError, match=r"no embeddings here \(the folder does not exist\); run: ragray"):
        read_manifest(tmp_path / "nowhere", "embeddings")


def test_an_artefact_of_another_kind_is_refused_with_both_kinds(corpus: Path) -> None:
    with pytest.raises(NotAnArtifactError, match=r"no run here .* kind corpus\); run: ragray train .* --out"):
        read_manifest(corpus, "run")


# What betrays a broken one.


def test_a_missing_file_is_found(corpus: Path) -> None:
    (corpus / "quarantine.jsonl").unlink()
    assert corruption(corpus).startswith(f"{corpus / 'quarantine.jsonl'}: missing")


def test_a_truncated_file_is_found_with_both_sizes(corpus: Path) -> None:
    path = corpus / "passages" / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:-3])
    assert corruption(corpus).startswith(f"{path}: 10 bytes, the manifest says 13")


def test_a_changed_file_of_the_same_size_is_found(corpus: Path) -> None:
    path = corpus / "passages" / "part-0.parquet"
    path.write_bytes(b"five passages")
    assert corruption(corpus).startswith(f"{path}: content differs from its checksum")


def test_a_newer_format_is_refused_with_both_versions_and_the_advice_to_upgrade(corpus: Path) -> None:
    change_manifest(corpus, format_version=2, invented_later=True)
    assert corruption(corpus).startswith(f"{corpus / MANIFEST_NAME}: format_version 2 was written by a newer ragray")
    assert corruption(corpus).endswith("(this one reads 1); upgrade")


@pytest.mark.parametrize("text", ["", '{"kind": "corpus"', "[]", '{"kind": "corpus"}', "\x00"])
def test_a_manifest_that_cannot_be_read_is_named_in_one_line(corpus: Path, text: str) -> None:
    (corpus / MANIFEST_NAME).write_text(text)
    assert corruption(corpus).startswith(f"{corpus / MANIFEST_NAME}: cannot be read as a manifest")
    assert "\n" not in corruption(corpus)


# Nothing to do.


def test_an_artefact_is_current_for_its_own_fingerprint_only(corpus: Path) -> None:
    assert is_current(corpus, kind="corpus", fingerprint="f1")
    assert not is_current(corpus, kind="corpus", fingerprint="f2")
    assert not is_current(corpus, kind="run", fingerprint="f1")
    assert not is_current(corpus / "elsewhere", kind="corpus", fingerprint="f1")


def test_a_corrupt_artefact_is_not_current(corpus: Path) -> None:
    (corpus / "passages" / "part-0.parquet").write_bytes(b"five passages")
    assert not is_current(corpus, kind="corpus", fingerprint="f1")


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else() -> None:
    value = {"a": 1, "b": {"c": [1, 2], "d": "é"}}
    assert fingerprint(value) == fingerprint({"b": {"d": "é", "c": [1, 2]}, "a": 1})
    others = [
        value | {"a": "1"},
        value | {"a": 2},
        value | {"b": {"c": [2, 1], "d": "é"}},
        value | {"e": None},
        [value],
    ]
    assert len({fingerprint(other) for other in [value, *others]}) == 1 + len(others)


# Whole or not at all.


def test_atomic_path_moves_a_file_into_place(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    with atomic_path(target) as path:
        path.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert names(target.parent) == ["file"]


def test_atomic_path_replaces_a_folder_by_a_whole_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for generation in ("old", "new"):
        with atomic_path(target) as path:
            (path / "deep").mkdir(parents=True)
            (path / "deep" / generation).touch()
    assert [path.name for path in target.rglob("*")] == ["deep", "new"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_path_leaves_nothing_of_a_file_on_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_path(tmp_path / "file") as path:
        path.write_text("half")
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_path_leaves_nothing_of_a_folder_on_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_path(tmp_path / "folder") as path:
        (path / "deep").mkdir(parents=True)
        (path / "deep" / "file").write_text("half")
        raise error
    assert names(tmp_path) == []


def test_atomic_path_keeps_what_was_there_on_an_error(tmp_path: Path) -> None:
    for name in ("file", "folder/file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    with pytest.raises(ValueError), atomic_path(tmp_path / "file") as path:
        path.write_text("half")
        raise ValueError
    with pytest.raises(ValueError), atomic_path(tmp_path / "folder") as path:
        path.mkdir()
        raise ValueError
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "file").read_text() == "old"


def test_every_file_of_a_folder_is_flushed_before_the_folder_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[int, bool]] = []
    target = tmp_path / "folder"
    fsync = os.fsync

    def watched(handle: int) -> None:
        flushed.append((os.fstat(handle).st_ino, target.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    with atomic_path(target) as path:
        (path / "deep").mkdir(parents=True)
        (path / "deep" / "weights").write_text("whole")
    for part in (target / "deep" / "weights", target / "deep", target):
        assert (part.stat().st_ino, False) in flushed


# Who may write.

HOLDER = """
import sys, time
from pathlib import Path
from ragray.artifact.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_is_writing(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(ArtifactBusyError, match=f"{tmp_path}: process {holder.pid} is writing"), exclusive(tmp_path):
        pass


def test_the_folder_is_free_again_after_its_holder_was_killed(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with exclusive(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_the_folder_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError), exclusive(tmp_path):
        raise ValueError
    with exclusive(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["run", "index", "embeddings"])
def test_a_stage_does_not_overwrite_what_another_one_made(corpus: Path, kind: str) -> None:
    with (
        pytest.raises(ArtifactError, match="holds corpus; choose another --out"),
        exclusive(corpus, kind=kind),
    ):
        pass
    with exclusive(corpus, kind="corpus"):
        pass
    assert isinstance(open_artifact(corpus, "corpus"), Manifest)


def test_an_index_is_not_overwritten_either_and_what_cannot_be_read_is(tmp_path: Path) -> None:
    for name, text, found in (
        ("CURRENT", "000001-x", "index"),
        ("manifest.json", "{", ""),
        ("notes.txt", "mine", "files that ragray did not write"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        if not found:
            (folder / ".lock").touch()  # a stage wrote here, and what it wrote was damaged
        (folder / name).write_text(text)
        with contextlib.ExitStack() as stack:
            if found:
                stack.enter_context(pytest.raises(ArtifactError, match=f"holds {found}"))
            stack.enter_context(exclusive(folder, kind="corpus"))
        assert (folder / name).read_text() == text
    with pytest.raises(ArtifactError, match="is a file"), exclusive(tmp_path / "notes.txt" / "notes.txt", kind="run"):
        pass


def test_the_old_folder_is_put_back_where_the_new_one_cannot_be_moved(
    tmp_path: Path,
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "gone.tmp", tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_a_lock_is_no_artefact(corpus: Path) -> None:
    with exclusive(corpus):
        assert isinstance(open_artifact(corpus, "corpus"), Manifest)
    unpublish(corpus)
    assert not is_current(corpus, kind="corpus", fingerprint="f1")
    assert stat.S_ISREG((corpus / ".lock").stat().st_mode)


def test_a_full_disk_names_the_folder_of_the_stage_where_the_library_names_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match=rf"^{tmp_path / 'out'}: disk full \("),
        stage_output(tmp_path / "out", kind="corpus", work="work"),
    ):
        raise OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device")


def test_other_errors_of_a_stage_stay_as_they_are(tmp_path: Path) -> None:
    for error in (ValueError("no space here"), InputError("a.jsonl:1: No space left on device")):
        with pytest.raises(type(error)) as caught, stage_output(tmp_path / "out", kind="corpus", work="work"):
            raise error
        assert caught.value is error
