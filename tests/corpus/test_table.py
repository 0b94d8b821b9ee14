"""Passages survive the disk, shards are cut evenly, and an open corpus is what its manifest says."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import JsonValue

from ragray.artifact.manifest import publish
from ragray.corpus.dedup import content_hash
from ragray.corpus.table import (
    PASSAGE_SCHEMA,
    ROW_GROUP_ROWS,
    SCHEMA_VERSION,
    Corpus,
    ShardWriter,
    passages_to_table,
    table_to_passages,
)
from ragray.errors import CorruptArtifactError, NotAnArtifactError
from ragray.types import Passage


def passages(count: int) -> list[Passage]:
    return [Passage(f"p{n}", f"text {n}", f"title {n}", f"d{n}", {"n": str(n)} if n % 2 else {}) for n in range(count)]


def write_corpus(folder: Path, count: int, shard_rows: int, table_rows: int = 7) -> Path:
    rows = passages_to_table(passages(count))
    with ShardWriter(folder / "passages", shard_rows) as shards:
        for start in range(0, count, table_rows):
            shards.write(rows.slice(start, table_rows))
    facts = {"num_passages": shards.num_rows, "num_documents": count, "schema_version": SCHEMA_VERSION}
    publish(folder, kind="corpus", fingerprint="f", facts=facts, files=shards.paths)
    return folder


def test_passages_come_back_from_a_table_as_they_were() -> None:
    table = passages_to_table(passages(5))
    assert table.schema == PASSAGE_SCHEMA
    assert table_to_passages(table) == passages(5)


def test_a_row_carries_the_hash_of_its_content() -> None:
    assert passages_to_table(passages(1))["content_hash"].to_pylist() == [content_hash("title 0", "text 0")]


def test_a_corpus_gives_back_its_passages_in_order(tmp_path: Path) -> None:
    corpus = Corpus.open(write_corpus(tmp_path, 25, shard_rows=10))
    assert list(corpus.iter_passages()) == passages(25)
    assert (corpus.num_passages, corpus.num_documents, corpus.fingerprint) == (25, 25, "f")


def test_shards_are_absolute_paths_with_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "c", 25, shard_rows=10)
    monkeypatch.chdir(tmp_path)
    shards = Corpus.open(Path("c")).shards
    assert [rows for _, rows in shards] == [10, 10, 5]
    assert all(path.is_absolute() and pq.read_metadata(path).num_rows == rows for path, rows in shards)


def test_tables_hold_the_columns_asked_for(tmp_path: Path) -> None:
    corpus = Corpus.open(write_corpus(tmp_path, 5, shard_rows=10))
    (table,) = corpus.iter_tables(["id", "text"])
    assert table.column_names == ["id", "text"]


def test_row_groups_are_bounded_so_that_a_part_of_a_shard_can_be_read(tmp_path: Path) -> None:
    corpus = Corpus.open(write_corpus(tmp_path, ROW_GROUP_ROWS + 1, shard_rows=100_000, table_rows=1000))
    assert [len(table) for table in corpus.iter_tables(["id"])] == [ROW_GROUP_ROWS, 1]


def test_the_bytes_of_shards_do_not_depend_on_how_rows_arrive(tmp_path: Path) -> None:
    one = Corpus.open(write_corpus(tmp_path / "one", 50, shard_rows=20, table_rows=3))
    two = Corpus.open(write_corpus(tmp_path / "two", 50, shard_rows=20, table_rows=50))
    assert [path.read_bytes() for path, _ in one.shards] == [path.read_bytes() for path, _ in two.shards]


def test_an_interrupted_shard_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "passages", 10) as shards:
        shards.write(passages_to_table(passages(15)))
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "passages").iterdir()] in ([], ["part-00000.parquet"])


def test_an_unfinished_folder_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifactError, match="ragray ingest"):
        Corpus.open(tmp_path)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    path = Corpus.open(write_corpus(tmp_path, 5, shard_rows=10)).shards[0][0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptArtifactError, match=r"part-00000\.parquet"):
        Corpus.open(tmp_path)


def test_a_count_that_differs_from_the_manifest_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path, 5, shard_rows=10)
    facts = {"num_passages": 6, "num_documents": 5, "schema_version": SCHEMA_VERSION}
    publish(tmp_path, kind="corpus", fingerprint="f", facts=facts, files=[tmp_path / "passages" / "part-00000.parquet"])
    with pytest.raises(CorruptArtifactError, match="5 passages"):
        Corpus.open(tmp_path)


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ({}, "missing"),
        ({"num_documents": "5"}, '"5"'),
        ({"num_documents": None}, "null"),
        ({"num_documents": [5]}, "[5]"),
    ],
)
def test_a_manifest_without_a_number_of_documents_is_refused_with_file_and_key(
    tmp_path: Path, extra: dict[str, JsonValue], found: str
) -> None:
    write_corpus(tmp_path, 5, shard_rows=10)
    facts: dict[str, JsonValue] = {"num_passages": 5, "schema_version": SCHEMA_VERSION, **extra}
    publish(tmp_path, kind="corpus", fingerprint="f", facts=facts, files=[tmp_path / "passages" / "part-00000.parquet"])
    with pytest.raises(CorruptArtifactError) as caught:
        Corpus.open(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'manifest.json'}: facts.num_documents is {found}, expected int; "
        f"run: ragray ingest SOURCE... --out {tmp_path}"
    )
