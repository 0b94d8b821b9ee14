"""A snapshot is written once, `CURRENT` names one of them, and what cannot be read says so and what to do."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ragray.config import EncoderConfig
from ragray.embed.encoder import HashEncoder
from ragray.errors import CorruptArtifactError, NotAnArtifactError
from ragray.index.snapshot import (
    CURRENT,
    SNAPSHOTS,
    SegmentRef,
    Snapshot,
    current_name,
    names,
    next_name,
    publish_snapshot,
    read_snapshot,
)


def snapshot(name: str, parent: str | None = None) -> Snapshot:
    return Snapshot(
        name=name,
        parent=parent,
        created_at="2026-01-01T00:00:00+00:00",
        source="s",
        segments=(SegmentRef(name="a", num_rows=10, deleted=(3, 4)), SegmentRef(name="b", num_rows=5)),
        encoder=HashEncoder(8).fingerprint,
        encoder_config=EncoderConfig(model="hash:8"),
        dim=8,
        factory="Flat",
        nprobe=0,
        recall_at_10=None,
    )


def test_a_snapshot_comes_back_as_it_was_published(tmp_path: Path) -> None:
    publish_snapshot(tmp_path, snapshot("000001-x"))
    assert read_snapshot(tmp_path) == snapshot("000001-x")
    assert read_snapshot(tmp_path).num_rows == 15


def test_the_last_one_published_is_current_and_the_others_can_still_be_read(tmp_path: Path) -> None:
    publish_snapshot(tmp_path, snapshot("000001-x"))
    publish_snapshot(tmp_path, snapshot("000002-y", parent="000001-x"))
    assert current_name(tmp_path) == "000002-y"
    assert names(tmp_path) == ["000001-x", "000002-y"]
    assert read_snapshot(tmp_path, "000001-x").parent is None


def test_publishing_leaves_no_other_files(tmp_path: Path) -> None:
    publish_snapshot(tmp_path, snapshot("000001-x"))
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {CURRENT, f"{SNAPSHOTS}/000001-x.json"}


def test_a_snapshot_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        snapshot("x").dim = 9  # type: ignore[misc] # frozen, as is tested


def test_names_count_up_and_sort_by_age(tmp_path: Path) -> None:
    given = []
    for _ in range(11):
        given.append(next_name(tmp_path, "source"))
        publish_snapshot(tmp_path, snapshot(given[-1]))
    assert given == sorted(given) == names(tmp_path)
    assert [name.split("-")[0] for name in given] == [f"{number:06}" for number in range(1, 12)]
    assert next_name(tmp_path, "source") != next_name(tmp_path, "other source")


def test_a_folder_that_is_not_there_or_was_never_finished_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifactError, match=r"does not exist\); run: ragray index build"):
        read_snapshot(tmp_path / "nowhere")
    with pytest.raises(NotAnArtifactError, match="has no CURRENT"):
        read_snapshot(tmp_path)


def test_a_snapshot_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    publish_snapshot(tmp_path, snapshot("000001-x"))
    with pytest.raises(NotAnArtifactError, match="no snapshot '000009-z'; there are: 000001-x"):
        read_snapshot(tmp_path, "000009-z")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "build the index again"),
        (b"[]", "build the index again"),
        (b"\xff", "build the index again"),
        (b'{"name": "000001-x"}', "dim"),
    ],
)
def test_a_damaged_snapshot_is_refused_with_its_reason(tmp_path: Path, content: bytes, message: str) -> None:
    publish_snapshot(tmp_path, snapshot("000001-x"))
    (tmp_path / SNAPSHOTS / "000001-x.json").write_bytes(content)
    with pytest.raises(CorruptArtifactError, match=message) as caught:
        read_snapshot(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / SNAPSHOTS / '000001-x.json'}: cannot be read as a snapshot")


def test_a_snapshot_of_a_newer_ragray_asks_for_an_upgrade(tmp_path: Path) -> None:
    publish_snapshot(tmp_path, snapshot("000001-x"))
    path = tmp_path / SNAPSHOTS / "000001-x.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99, "new": 1}))
    with pytest.raises(CorruptArtifactError, match="format_version 99 was written by a newer ragray"):
        read_snapshot(tmp_path)
