"""Promoting, rolling back and collecting: only what opens becomes current, and nothing that is needed is removed."""

import os
import shutil
import time
from pathlib import Path

import pytest

from ragray.artifact.files import write_json
from ragray.artifact.lock import exclusive
from ragray.config import IndexConfig
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.errors import ArtifactBusyError, ArtifactError, CorruptArtifactError, NotAnArtifactError
from ragray.index.plan.tune import curve_path
from ragray.index.search.reader import IndexReader
from ragray.index.store.lifecycle import GarbageReport, collect_garbage, list_snapshots, promote, rollback
from ragray.index.store.segment import FAISS_FILE
from ragray.index.store.snapshot import CURRENT, SEGMENTS, SNAPSHOTS, current_name, names, read_snapshot
from ragray.index.store.tombstones import TOMBSTONES
from ragray.index.write.delete import delete_passages
from tests.helpers import index_of, some_passages, write_corpus, write_embeddings, write_index

PASSAGES = some_passages(20)
QUESTIONS = HashEncoder(64).encode([passage_text(passage) for passage in PASSAGES])
NOTHING = GarbageReport((), (), (), 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four snapshots of two segments, of which each hides one passage more."""
    folder = index_of(tmp_path_factory.mktemp("finished"), PASSAGES, IndexConfig(segment_rows=10))
    for number in range(3):
        delete_passages(folder, ids=[f"p{number}"])
    return folder


@pytest.fixture
def index(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "index"))


def num_found(index: Path) -> int:
    return sum(len(hits) for hits in IndexReader.open(index).search(QUESTIONS[:1], 20).hits)


def files(index: Path) -> set[str]:
    return {path.relative_to(index).as_posix() for path in index.rglob("*") if path.is_file()}


def test_the_list_tells_the_snapshots_apart(index: Path) -> None:
    found = list_snapshots(index)
    assert [info.name for info in found] == names(index)
    assert [info.parent for info in found] == [None, *names(index)[:3]]
    assert [(info.num_live, info.num_deleted) for info in found] == [(20, 0), (19, 1), (18, 2), (17, 3)]
    assert [info.is_current for info in found] == [False, False, False, True]
    assert {(info.segments, info.factory, info.recall, info.problem) for info in found} == {(2, "Flat", None, "")}


def test_the_list_names_a_snapshot_that_cannot_be_read(index: Path) -> None:
    (index / SNAPSHOTS / f"{names(index)[1]}.json").write_text("{")
    found = list_snapshots(index)
    assert [bool(info.problem) for info in found] == [False, True, False, False]
    assert "cannot be read as a snapshot" in found[1].problem


def test_rolling_back_goes_to_the_parent_until_there_is_none(index: Path) -> None:
    first, second, third, _ = names(index)
    assert [rollback(index), num_found(index)] == [third, 18]
    assert [rollback(index), num_found(index)] == [second, 19]
    assert [rollback(index), num_found(index)] == [first, 20]
    with pytest.raises(ArtifactError, match=f"snapshot {first} has no parent"):
        rollback(index)
    assert current_name(index) == first


def test_any_snapshot_can_be_promoted_and_the_next_one_builds_on_it(index: Path) -> None:
    promote(index, names(index)[0])
    assert num_found(index) == 20
    new = delete_passages(index, ids=["p19"]).snapshot
    assert (new.parent, new.name) == (names(index)[0], names(index)[-1])
    assert num_found(index) == 19
    assert len(names(index)) == 5


@pytest.mark.parametrize("part", ["segment", "tombstones", "snapshot"])
def test_what_does_not_open_never_becomes_current(index: Path, part: str) -> None:
    target, current = read_snapshot(index, names(index)[2]), current_name(index)
    path = {
        "segment": index / SEGMENTS / target.segments[0].name / FAISS_FILE,
        "tombstones": index / TOMBSTONES / target.segments[0].tombstones,
        "snapshot": index / SNAPSHOTS / f"{target.name}.json",
    }[part]
    path.write_bytes(path.read_bytes()[:-3])
    for move in (lambda: promote(index, target.name), lambda: rollback(index)):
        with pytest.raises(CorruptArtifactError):
            move()
    assert current_name(index) == current


def test_a_snapshot_that_is_not_there_cannot_be_promoted(index: Path) -> None:
    with pytest.raises(NotAnArtifactError, match="no snapshot '000009-x'"):
        promote(index, "000009-x")


def test_snapshots_beyond_those_kept_are_removed_with_what_they_alone_need(index: Path) -> None:
    first, second, third, fourth = names(index)
    alone = [read_snapshot(index, name).segments[0].tombstones for name in (second, third)]
    before = files(index)
    collected = collect_garbage(index, keep=0, min_age_s=0)
    assert (collected.snapshots, sorted(collected.tombstones)) == ((first, second, third), sorted(alone))
    assert collected.segments == ()
    assert collected.num_bytes > 0
    assert names(index) == [fourth]
    assert len(before - files(index)) == 5
    assert num_found(index) == 17
    assert collect_garbage(index, keep=0, min_age_s=0) == NOTHING


def test_the_nearest_ancestors_are_kept(index: Path) -> None:
    first, second, third, fourth = names(index)
    assert collect_garbage(index, keep=2, min_age_s=0).snapshots == (first,)
    assert [rollback(index), rollback(index)] == [third, second]
    assert collect_garbage(index, keep=2, min_age_s=0).snapshots == (third, fourth)
    with pytest.raises(NotAnArtifactError, match=f"no snapshot '{first}'"):
        rollback(index)
    assert num_found(index) == 19


def test_what_is_young_is_kept(index: Path) -> None:
    first, *_, fourth = names(index)  # the first is said to be of January
    stray = index / SEGMENTS / "0123-00000"
    shutil.copytree(index / SEGMENTS / read_snapshot(index).segments[0].name, stray)
    assert collect_garbage(index, keep=0, min_age_s=600).snapshots == (first,)
    assert stray.is_dir()
    hour_ago = time.time() - 3600
    for path in [stray, *stray.rglob("*")]:
        os.utime(path, (hour_ago, hour_ago))
    assert collect_garbage(index, keep=0, min_age_s=600).segments == ("0123-00000",)
    assert current_name(index) == fourth


def test_segments_curves_and_leavings_that_nobody_names_are_removed(index: Path, tmp_path: Path) -> None:
    old = read_snapshot(index)
    corpus = write_corpus(tmp_path / "new-corpus", PASSAGES[:15])
    write_index(index, write_embeddings(tmp_path / "new", corpus), corpus, name="000007-new")
    write_json(curve_path(index, old.name), [])
    write_json(curve_path(index, "000007-new"), [])
    for name in (".CURRENT.0a1b2c3d.tmp", f"{SNAPSHOTS}/.x.json.0a1b2c3d.tmp", ".sync/key/corpus/part"):
        (index / name).parent.mkdir(parents=True, exist_ok=True)
        (index / name).write_text("x")
    (index / SEGMENTS / ".x.0a1b2c3d.tmp").mkdir()
    collected = collect_garbage(index, keep=0, min_age_s=0)
    assert set(collected.segments) == {ref.name for ref in old.segments}
    assert [path.name for path in (index / SEGMENTS).iterdir()] == [read_snapshot(index).segments[0].name]
    assert [path.name for path in curve_path(index, "").parent.iterdir()] == ["000007-new.json"]
    assert sorted(path.name for path in index.iterdir()) == [
        ".current.lock", ".lock", CURRENT, SEGMENTS, SNAPSHOTS, TOMBSTONES, "tuning",
    ]  # fmt: skip
    assert num_found(index) == 15


def test_an_open_reader_outlives_what_it_reads(index: Path, tmp_path: Path) -> None:
    reader = IndexReader.open(index)
    before = reader.search(QUESTIONS, 20)
    corpus = write_corpus(tmp_path / "new-corpus", PASSAGES[:15])
    write_index(index, write_embeddings(tmp_path / "new", corpus), corpus, name="000007-new")
    assert len(collect_garbage(index, keep=0, min_age_s=0).segments) == 2
    assert reader.search(QUESTIONS, 20).hits == before.hits


def test_nothing_is_collected_while_another_process_writes(index: Path) -> None:
    before = files(index)
    with exclusive(index), pytest.raises(ArtifactBusyError):
        collect_garbage(index, keep=0, min_age_s=0)
    assert files(index) == before


@pytest.mark.parametrize("number", [0, 3])
def test_nothing_is_collected_where_a_snapshot_cannot_be_read(index: Path, number: int) -> None:
    (index / SNAPSHOTS / f"{names(index)[number]}.json").write_text("{}")
    before = files(index) | {".lock", ".current.lock"}
    with pytest.raises(CorruptArtifactError, match=r"restore the file, or remove it|promote another"):
        collect_garbage(index, keep=0, min_age_s=0)
    assert files(index) == before


def test_a_folder_that_is_no_index_is_refused_and_left_alone(tmp_path: Path) -> None:
    for work in (lambda: list_snapshots(tmp_path / "x"), lambda: collect_garbage(tmp_path / "x")):
        with pytest.raises(NotAnArtifactError):
            work()
    assert not (tmp_path / "x").exists()
