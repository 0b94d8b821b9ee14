"""What each format yields, what is refused with its line, and what stops everything."""

import gzip
import json
import tracemalloc
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ragray.config import IngestConfig
from ragray.corpus.read import Record, Refusal, read_source
from ragray.corpus.sources import find_sources
from ragray.errors import InputError
from ragray.types import Document

CONFIG = IngestConfig()


def read(path: Path, config: IngestConfig = CONFIG) -> list[Record | Refusal]:
    return [item for source in find_sources([str(path)]) for item in read_source(source, config)]


def documents(items: Sequence[Record | Refusal]) -> list[Document]:
    return [item.document for item in items if isinstance(item, Record)]


def reasons(items: Sequence[Record | Refusal]) -> list[tuple[int, str]]:
    return [(item.line, item.reason) for item in items if isinstance(item, Refusal)]


def written(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "A.JSONL"])
def test_jsonl_yields_id_title_text_and_scalar_metadata(tmp_path: Path, name: str) -> None:
    record = {"id": 7, "title": "T", "text": "Text", "year": 1999, "ok": True, "none": None, "list": [1], "x": "ü"}
    path = written(tmp_path / name, json.dumps(record) + "\n\n" + '{"text": "Second"}')
    first, second = read(path)
    assert first == Record(1, Document("7", "Text", "T", {"year": "1999", "ok": "true", "x": "ü"}))
    assert isinstance(second, Record) and second.line == 3 and len(second.document.id) == 16


def test_fields_have_the_names_of_the_configuration(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"key": "k", "head": "H", "body": "B", "text": "other"}')
    config = IngestConfig(id_field="key", title_field="head", text_field="body")
    assert documents(read(path, config)) == [Document("k", "B", "H", {"text": "other"})]


def test_a_record_without_id_gets_one_from_its_content(tmp_path: Path) -> None:
    lines = ['{"text": "a"}', '{"text": "a", "n": 1}', '{"text": "b"}', '{"text": "a", "title": "t"}']
    first, same, *others = [
        document.id for document in documents(read(written(tmp_path / "a.jsonl", "\n".join(lines))))
    ]
    assert first == same
    assert len({first, *others}) == 3


def test_a_broken_line_is_refused_with_its_number_and_the_rest_goes_on(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"text": "first, behind a byte order mark"}',
        b'{"text": "unclosed',
        b"[1, 2]",
        b'{"id": "no-text"}',
        b'{"text": 5, "id": "five"}',
        b'{"text": "caf\xe9"}',
        b'{"id": [1], "text": "a"}',
        b'{"title": {}, "text": "a"}',
        b"[" * 100_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"text": "last"}',
    ]
    items = read(written(tmp_path / "a.jsonl", b"\n".join(lines)))
    assert [document.text for document in documents(items)] == ["first, behind a byte order mark", "last"]
    assert reasons(items) == [
        (2, "not valid JSON"),
        (3, "not a JSON object"),
        (4, "no field 'text'"),
        (5, "field 'text' is no string but int"),
        (6, "not valid UTF-8"),
        (7, "field 'id' is no string but list"),
        (8, "field 'title' is no string but dict"),
        (9, "not valid JSON"),
        (10, "not valid JSON"),
    ]
    refusal = next(item for item in items if isinstance(item, Refusal) and item.line == 5)
    assert (refusal.source, refusal.document_id) == (str(tmp_path / "a.jsonl"), "five")
    assert refusal.excerpt == '{"text": 5, "id": "five"}'


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv"])
def test_an_endless_line_is_passed_over_in_bounded_memory(tmp_path: Path, name: str) -> None:
    head = "text\n" if name == "a.csv" else ""
    good = "good" if name == "a.csv" else '{"text": "good"}'
    path = written(tmp_path / name, head + "x" * 100_000_000 + "\n" + good)
    tracemalloc.start()
    items = read(path, IngestConfig(max_chars=1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [reason for _, reason in reasons(items)] == ["longer than max_chars=1000"]
    assert [document.text for document in documents(items)] == ["good"]
    assert peak < 10_000_000


def test_a_lone_surrogate_in_an_id_does_not_stop_anything(tmp_path: Path) -> None:
    (document,) = documents(read(written(tmp_path / "a.jsonl", r'{"id": "a\ud800", "text": "t", "m": "\udfff"}')))
    assert (document.id, document.metadata) == ("a?", {"m": "?"})


def test_csv_yields_records_with_the_line_they_begin_on(tmp_path: Path) -> None:
    content = '\ufeffid,text,year\n1,"two\nlines, quoted ""so""",1999\n\n2,plain,\n'
    assert read(written(tmp_path / "a.csv", content)) == [
        Record(2, Document("1", 'two\nlines, quoted "so"', "", {"year": "1999"})),
        Record(5, Document("2", "plain")),
    ]


def test_a_broken_row_of_csv_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    content = b'id,text\n1,a,b\n2,caf\xe9\n3,"a"b\n4,good\n5,"never closed\n'
    items = read(written(tmp_path / "a.csv.gz", content))
    assert [document.text for document in documents(items)] == ["good"]
    assert reasons(items) == [
        (2, "has 3 columns instead of 2"),
        (3, "not valid UTF-8"),
        (4, "not valid CSV"),
        (6, "not valid CSV"),
    ]


def test_parquet_yields_rows_with_scalar_columns_as_metadata(tmp_path: Path) -> None:
    columns = {
        "id": [1, 2, 3],
        "text": ["a", None, "c"],
        "day": [date(2020, 1, 2), None, None],
        "nested": [[1], [2], [3]],
        "raw": [b"x", b"y", b"z"],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    items = read(tmp_path / "a.parquet")
    assert items[0] == Record(1, Document("1", "a", "", {"day": "2020-01-02"}))
    assert items[2] == Record(3, Document("3", "c"))
    assert reasons(items) == [(2, "no field 'text'")]


def test_a_row_of_parquet_that_is_not_utf8_is_refused_alone(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"caf\xe9", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    items = read(tmp_path / "a.parquet")
    assert [document.text for document in documents(items)] == ["good", "fine"]
    assert reasons(items) == [(2, "not valid UTF-8")]


def test_a_text_file_is_one_document_named_by_its_path_below_the_source(tmp_path: Path) -> None:
    written(tmp_path / "docs" / "sub" / "a.txt", "Some text.\n")
    assert read(tmp_path / "docs") == [Record(1, Document("sub/a.txt", "Some text.\n"))]
    assert documents(read(tmp_path / "docs" / "sub" / "a.txt"))[0].id == "a.txt"
    assert documents(read(tmp_path / "docs" / "**" / "*.txt"))[0].id == "sub/a.txt"


def test_the_first_heading_outside_of_code_is_the_title_of_markdown(tmp_path: Path) -> None:
    text = "intro\n```sh\n# no heading\n```\n\n## The heading ##\n\n# Another\n"
    assert documents(read(written(tmp_path / "a.md", text))) == [Document("a.md", text, "The heading")]


def test_a_text_file_that_is_not_utf8_is_refused_with_the_line_of_the_bad_byte(tmp_path: Path) -> None:
    items = read(written(tmp_path / "a.txt", b"one\ntwo caf\xe9\nthree"))
    assert items == [Refusal(str(tmp_path / "a.txt"), 2, "a.txt", "not valid UTF-8", "two caf\ufffd")]


def test_a_folder_stands_for_its_supported_files_sorted_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a.jsonl", "notes.docx", ".git/c.txt", ".d.txt"):
        written(tmp_path / name, "x")
    assert [source.name for source in find_sources([str(tmp_path)])] == ["a.jsonl", "a/z.md", "b.txt"]


def test_a_file_named_twice_is_read_once_and_the_output_folder_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path / "a.txt", "x")
    written(tmp_path / "out" / "b.txt", "x")
    found = find_sources([str(tmp_path / "a.txt"), str(tmp_path)], exclude=tmp_path / "out")
    assert [source.name for source in found] == ["a.txt"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.jsonl", "no such file"),
        ("missing*.jsonl", "no file of a supported format"),
        ("notes.docx", r"not supported; convert it to one of \.jsonl"),
        ("empty", "no file of a supported format"),
    ],
)
def test_a_source_that_cannot_be_used_is_named_with_what_to_do(tmp_path: Path, source: str, message: str) -> None:
    written(tmp_path / "notes.docx", "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message) as caught:
        find_sources([str(tmp_path / source)])
    assert source in str(caught.value)


def test_no_source_at_all_is_an_error() -> None:
    with pytest.raises(InputError, match="no source"):
        find_sources([])


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", ""), ("a.jsonl.gz", "\n \n"), ("a.csv", ""), ("b.csv", "id,text\n")]
)
def test_a_file_without_records_is_an_error(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(InputError, match=f"{name}: holds no records"):
        read(written(tmp_path / name, content))


def test_a_table_without_the_text_column_names_its_columns_and_the_option(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "body": ["b"]}), tmp_path / "a.parquet")
    for path in (tmp_path / "a.parquet", written(tmp_path / "b.csv", "id,body\n1,b\n")):
        with pytest.raises(InputError, match=r"no column 'text' but 'id', 'body'.*ingest\.text_field="):
            read(path)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-20])
    with pytest.raises(InputError, match=f"{name}: cannot be read as"):
        read(tmp_path / name)
