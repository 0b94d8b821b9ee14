"""A snapshot is written once, `CURRENT` names one of them, and what cannot be read says so and what to do."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from ragray.artifact.digest import fingerprint
from ragray.errors import ArtifactError, CorruptArtifactError, NotAnArtifactError, SnapshotConflictError
from ragray.index.store.search_params import SearchParams
from ragray.index.store.snapshot import (
    CURRENT,
    CURRENT_LOCK,
    SNAPSHOTS,
    SegmentRef,
    Snapshot,
    current_name,
    find_current,
    names,
    next_name,
    publish_snapshot,
    read_snapshot,
    successor,
)
from tests.helpers import make_snapshot


def snapshot(name: str, parent: str | None = None) -> Snapshot:
    segments = [
        SegmentRef(name="a", num_rows=10, tombstones="t.npy", num_deleted=2),
        SegmentRef(name="b", num_rows=5),
    ]
    return make_snapshot(name, segments, dim=8, parent=parent, source="s")


def publish(index: Path, new: Snapshot) -> None:
    publish_snapshot(index, new, expected=find_current(index))


def test_a_snapshot_comes_back_as_it_was_published(tmp_path: Path) -> None:
    publish(tmp_path, snapshot("000001-x"))
    assert read_snapshot(tmp_path) == snapshot("000001-x")
    assert read_snapshot(tmp_path).num_rows == 15


def test_the_last_one_published_is_current_and_the_others_can_still_be_read(tmp_path: Path) -> None:
    publish(tmp_path, snapshot("000001-x"))
    publish(tmp_path, snapshot("000002-y", parent="000001-x"))
    assert current_name(tmp_path) == "000002-y"
    assert names(tmp_path) == ["000001-x", "000002-y"]
    assert read_snapshot(tmp_path, "000001-x").parent is None


def test_publishing_leaves_no_other_files(tmp_path: Path) -> None:
    publish(tmp_path, snapshot("000001-x"))
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {CURRENT, CURRENT_LOCK, f"{SNAPSHOTS}/000001-x.json"}


def test_a_snapshot_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        snapshot("x").dim = 9  # type: ignore[misc] # frozen, as is tested


def test_names_count_up_and_sort_by_age(tmp_path: Path) -> None:
    given = []
    for _ in range(11):
        given.append(next_name(tmp_path, "source"))
        publish(tmp_path, snapshot(given[-1]))
    assert given == sorted(given) == names(tmp_path)
    assert [name.split("-")[0] for name in given] == [f"{number:06}" for number in range(1, 12)]
    assert next_name(tmp_path, "source") != next_name(tmp_path, "other source")


def test_a_folder_that_is_not_there_or_was_never_finished_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifactError, match=r"does not exist\); run: ragray index build"):
        read_snapshot(tmp_path / "nowhere")
    with pytest.raises(NotAnArtifactError, match="has no CURRENT"):
        read_snapshot(tmp_path)


def test_a_snapshot_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    publish(tmp_path, snapshot("000001-x"))
    with pytest.raises(NotAnArtifactError, match=r"no snapshot '000009-z' .* there are: 000001-x"):
        read_snapshot(tmp_path, "000009-z")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "build the index again"),
        (b"[]", "build the index again"),
        (b"\xff", "build the index again"),
        (b'{"name": "000001-x"}', "dim"),
        (b"", "promote another snapshot"),
    ],
)
def test_a_damaged_snapshot_is_refused_with_its_reason(tmp_path: Path, content: bytes, message: str) -> None:
    publish(tmp_path, snapshot("000001-x"))
    (tmp_path / SNAPSHOTS / "000001-x.json").write_bytes(content)
    with pytest.raises(CorruptArtifactError, match=message) as caught:
        read_snapshot(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / SNAPSHOTS / '000001-x.json'}: cannot be read as a snapshot")


def test_a_snapshot_of_a_newer_ragray_asks_for_an_upgrade(tmp_path: Path) -> None:
    publish(tmp_path, snapshot("000001-x"))
    path = tmp_path / SNAPSHOTS / "000001-x.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99, "new": 1}))
    with pytest.raises(CorruptArtifactError, match="format_version 99 was written by a newer ragray"):
        read_snapshot(tmp_path)


def test_a_changed_byte_in_a_snapshot_is_noticed(tmp_path: Path) -> None:
    publish(tmp_path, snapshot("000001-x"))
    path = tmp_path / SNAPSHOTS / "000001-x.json"
    whole = path.read_bytes()
    unnoticed = []
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            if read_snapshot(tmp_path) != snapshot("000001-x"):
                unnoticed.append(place)
        except CorruptArtifactError:
            pass
    assert unnoticed == []


def test_a_snapshot_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, snapshot("000001-x"))
    (tmp_path / SNAPSHOTS / "000001-x.json").rename(tmp_path / SNAPSHOTS / "000001-y.json")
    with pytest.raises(CorruptArtifactError, match="name 000001-x"):
        read_snapshot(tmp_path, "000001-y")


def test_current_is_moved_only_from_where_the_writer_believes_it_to_be(tmp_path: Path) -> None:
    publish_snapshot(tmp_path, snapshot("000001-x"), expected=None)
    publish_snapshot(tmp_path, snapshot("000002-y", parent="000001-x"), expected="000001-x")
    for name, expected in (("000003-z", "000001-x"), ("000003-z", None), ("000003-z", "000009-q")):
        with pytest.raises(SnapshotConflictError, match=r"the current snapshot is 000002-y, .* run again on top"):
            publish_snapshot(tmp_path, snapshot(name), expected=expected)
    assert names(tmp_path) == ["000001-x", "000002-y"]
    assert current_name(tmp_path) == "000002-y"


def test_a_name_that_is_taken_is_not_written_over(tmp_path: Path) -> None:
    publish(tmp_path, snapshot("000001-x"))
    with pytest.raises(SnapshotConflictError, match="taken the name 000001-x"):
        publish(tmp_path, snapshot("000001-x", parent="other"))
    assert read_snapshot(tmp_path).parent is None


def test_of_many_writers_exactly_one_wins_every_round(tmp_path: Path) -> None:
    publish(tmp_path, snapshot("000000-x"))

    def write(writer: int) -> int:
        won = 0
        for _ in range(10):
            parent = current_name(tmp_path)
            new = snapshot(next_name(tmp_path, f"writer {writer}"), parent=parent)
            try:
                publish_snapshot(tmp_path, new, expected=parent)
            except SnapshotConflictError:
                continue
            won += 1
        return won

    with ThreadPoolExecutor(4) as pool:
        won = sum(pool.map(write, range(4)))
    lineage = [read_snapshot(tmp_path)]
    while lineage[-1].parent:
        lineage.append(read_snapshot(tmp_path, lineage[-1].parent))
    assert [one.name for one in reversed(lineage)] == names(tmp_path)
    assert len(lineage) == won + 1 > 10


@pytest.mark.parametrize("index", ["s3://bucket/index", "gs:/bucket/index", "hdfs://host:1/x"])
def test_an_index_on_an_object_store_is_refused(index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match="an index needs a file system"):
        read_snapshot(Path(index))
    with pytest.raises(ArtifactError, match="an index needs a file system"):
        publish_snapshot(Path(index), snapshot("000001-x"), expected=None)
    assert list(tmp_path.iterdir()) == []


def test_a_successor_differs_in_what_it_holds_alone(tmp_path: Path) -> None:
    publish(tmp_path, snapshot("000001-x"))
    new = successor(tmp_path, snapshot("000001-x"), "t", [SegmentRef(name="c", num_rows=3)])
    assert (new.parent, new.source, new.num_rows) == ("000001-x", "t", 3)
    assert new.name == next_name(tmp_path, "t")
    kept = {"name", "parent", "created_at", "source", "segments"}
    assert new.model_dump(exclude=kept) == snapshot("000001-x").model_dump(exclude=kept)


def test_a_current_that_is_not_text_or_names_nothing_says_what_there_is(tmp_path: Path) -> None:
    publish(tmp_path, snapshot("000001-x"))
    (tmp_path / CURRENT).write_bytes(b"\xff\xfe")
    with pytest.raises(CorruptArtifactError, match=r"is not text .* into it: 000001-x"):
        read_snapshot(tmp_path)
    (tmp_path / CURRENT).write_bytes(b"")
    with pytest.raises(NotAnArtifactError, match=r"no snapshot '' .* there are: 000001-x"):
        read_snapshot(tmp_path)


WRITTEN_BEFORE = """{
  "name": "000003-a1b2c3d4",
  "format_version": 1,
  "parent": "000002-e5f6a7b8",
  "created_at": "2026-01-01T00:00:00+00:00",
  "source": "s",
  "build": "b",
  "segments": [
    {
      "name": "a",
      "num_rows": 10,
      "tombstones": "",
      "num_deleted": 0
    }
  ],
  "encoder": {
    "model": "hash:8",
    "weights": "hash",
    "dim": 8,
    "pooling": "sum",
    "normalize": true,
    "max_length": 0,
    "passage_prefix": ""
  },
  "encoder_config": {
    "model": "hash:8",
    "pooling": "auto",
    "normalize": true,
    "max_length": 256,
    "passage_prefix": "",
    "question_prefix": ""
  },
  "dim": 8,
  "metric": "inner_product",
  "factory": "IVF16,SQ8",
  "nprobe": 3,
  "ef_search": 0,
  "over_retrieve": 10,
  "lexical": "none",
  "recall_at_10": 0.97,
  "checksum": "CHECKSUM"
}
"""


def test_search_parameters_stand_among_the_other_keys_of_a_snapshots_file_as_they_always_did(tmp_path: Path) -> None:
    path = tmp_path / SNAPSHOTS / "000003-a1b2c3d4.json"
    path.parent.mkdir()
    (tmp_path / CURRENT).write_text("000003-a1b2c3d4\n")
    content = json.loads(WRITTEN_BEFORE)
    del content["checksum"]
    path.write_text(WRITTEN_BEFORE.replace("CHECKSUM", fingerprint(content)))
    found = read_snapshot(tmp_path)
    assert found.search_params == SearchParams(nprobe=3, over_retrieve=10)
    publish_snapshot(tmp_path / "again", found, expected=None)
    assert (tmp_path / "again" / SNAPSHOTS / path.name).read_bytes() == path.read_bytes()
