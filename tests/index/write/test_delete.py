"""Deleting by id, document or filter: what is deleted is found by nothing, and what was not asked for stays."""

import shutil
from collections.abc import Collection
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ragray.artifact.lock import exclusive
from ragray.cli import app
from ragray.config import IndexConfig
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.errors import ArtifactBusyError, InputError, NotAnArtifactError
from ragray.index.search.reader import IndexReader
from ragray.index.store.snapshot import current_name, names, read_snapshot
from ragray.index.write.delete import delete_passages
from tests.helpers import index_of, some_passages

PASSAGES = some_passages(30)
QUESTIONS = HashEncoder(64).encode([passage_text(passage) for passage in PASSAGES])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_of(tmp_path_factory.mktemp("finished"), PASSAGES, IndexConfig(segment_rows=10, lexical="plain"))


@pytest.fixture
def index(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "index"))


def found(index: Path) -> set[str]:
    """Every passage that any of the three ways of searching returns."""
    reader = IndexReader.open(index)
    texts = [passage_text(passage) for passage in PASSAGES]
    results = [reader.search(QUESTIONS, 30), reader.search(QUESTIONS, 30, where="n != 7")]
    results.append(reader.search_text(texts, 30))
    return {hit.passage.id for result in results for hits in result.hits for hit in hits}


def all_but(ids: Collection[str]) -> set[str]:
    return {passage.id for passage in PASSAGES} - set(ids)


def test_passages_are_deleted_by_their_id(index: Path) -> None:
    report = delete_passages(index, ids=["p3", "p29", "p10"])
    assert (report.num_deleted, report.unknown_ids) == (3, ())
    assert found(index) == all_but({"p3", "p29", "p10"})
    assert report.snapshot == read_snapshot(index)
    assert (report.snapshot.num_live, report.snapshot.num_rows, report.snapshot.parent) == (27, 30, "000001-test")


def test_all_passages_of_a_document_are_deleted_by_its_id(index: Path) -> None:
    report = delete_passages(index, ids={"d2", "p3"})
    assert (report.num_deleted, report.unknown_ids) == (3, ())
    assert found(index) == all_but({"p4", "p5", "p3"})


def test_passages_are_deleted_by_a_filter(index: Path) -> None:
    report = delete_passages(index, where="n >= 10")
    gone = {passage.id for passage in PASSAGES if int(passage.metadata.get("n", 0)) >= 10}
    assert report.num_deleted == len(gone) == 10
    assert found(index) == all_but(gone)


def test_deletions_add_up_and_the_older_snapshots_stay_as_they_were(index: Path) -> None:
    delete_passages(index, ids=["p1"])
    second = delete_passages(index, ids=["p1", "p2"])
    assert (second.num_deleted, second.unknown_ids) == (1, ("p1",))
    assert found(index) == all_but({"p1", "p2"})
    counts = [read_snapshot(index, name).num_live for name in names(index)]
    assert counts == [30, 29, 28]


@pytest.mark.parametrize(("ids", "where"), [(["x", "y"], ""), ([], "n == 1000")])
def test_where_nothing_matches_nothing_is_published(index: Path, ids: list[str], where: str) -> None:
    report = delete_passages(index, ids=ids, where=where)
    assert (report.num_deleted, report.unknown_ids) == (0, tuple(ids))
    assert names(index) == ["000001-test"]
    assert report.message.startswith("nothing to delete")
    assert report.message.endswith("snapshot 000001-test stays current")


def test_the_report_is_one_line(index: Path) -> None:
    report = delete_passages(index, ids=["p1", "x"])
    assert report.message == (
        f"1 passages deleted; 1 ids are not in the index, such as 'x'; snapshot {report.snapshot.name} is current"
    )


def test_everything_can_be_deleted(index: Path) -> None:
    assert delete_passages(index, ids=all_but(())).num_deleted == 30
    assert found(index) == set()


def test_ids_or_a_filter_is_asked_for_and_not_both(index: Path) -> None:
    with pytest.raises(InputError, match="one of the two"):
        delete_passages(index)
    with pytest.raises(InputError, match="one of the two"):
        delete_passages(index, ids=["p1"], where="n == 1")
    with pytest.raises(InputError, match="one of the two"):
        delete_passages(index, ids="p1")
    with pytest.raises(InputError, match=r"id '.udcff': character 1 .* cannot be written as UTF-8"):
        delete_passages(index, ids=["p1", "\udcff"])
    with pytest.raises(InputError):
        delete_passages(index, where="n ==")
    with pytest.raises(
        InputError, match="no passage has the field 'm'; there are id, document_id, title, n; nothing was"
    ):
        delete_passages(index, where="m != 1")
    assert names(index) == ["000001-test"]


def test_a_file_of_ids_may_begin_with_a_byte_order_mark_and_one_without_ids_is_said_to_be_empty(
    index: Path, tmp_path: Path
) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("p3\n\n p4 \r\n", encoding="utf-8-sig")
    result = CliRunner().invoke(app, ["index", "delete", str(index), "--ids", str(ids)], catch_exceptions=False)
    assert "2 passages deleted; snapshot" in result.output
    for content in ("", "\ufeff \n"):
        ids.write_text(content)
        with pytest.raises(InputError, match=r"ids.txt: is empty; expected an id a line"):
            CliRunner().invoke(app, ["index", "delete", str(index), "--ids", str(ids)], catch_exceptions=False)


def test_a_deletion_while_another_process_writes_is_refused_and_not_lost_silently(index: Path) -> None:
    with exclusive(index), pytest.raises(ArtifactBusyError):
        delete_passages(index, ids=["p1"])
    assert current_name(index) == "000001-test"


def test_a_folder_that_is_no_index_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifactError):
        delete_passages(tmp_path / "nowhere", ids=["p1"])
    assert not (tmp_path / "nowhere").exists()
