"""What each format yields, what is refused with its line, and what stops everything."""

import gzip
import json
import os
import random
import shutil
import tracemalloc
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ragray.config import IngestConfig
from ragray.corpus.read.documents import read_source
from ragray.corpus.read.find import find_sources
from ragray.corpus.read.record import Record, Refusal
from ragray.corpus.read.source import Source
from ragray.corpus.staging import plan_splits
from ragray.errors import InputError
from ragray.types import Document

CONFIG = IngestConfig()
NOT_UTF8 = "not valid UTF-8 (ingest.encoding=NAME reads another encoding)"


def read(path: Path, config: IngestConfig = CONFIG) -> list[Record | Refusal]:
    return [item for source in find_sources([str(path)]) for item in read_source(source, config)]


def documents(items: Sequence[Record | Refusal]) -> list[Document]:
    return [item.document for item in items if isinstance(item, Record)]


def reasons(items: Sequence[Record | Refusal]) -> list[tuple[int, str]]:
    return [(item.line, item.reason) for item in items if isinstance(item, Refusal)]


def written(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    compress = {".gz": gzip.compress, ".zst": lambda raw: pa.Codec("zstd").compress(raw).to_pybytes()}
    path.write_bytes(compress[path.suffix](data) if path.suffix in compress else data)
    return path


def write_columns(path: Path, table: pa.Table) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "A.JSONL"])
def test_jsonl_yields_id_title_text_and_scalar_metadata(tmp_path: Path, name: str) -> None:
    record = {"id": 7, "title": "T", "text": "Text", "year": 1999, "ok": True, "none": None, "list": [1], "x": "ü"}
    path = written(tmp_path / name, json.dumps(record) + "\n\n" + '{"text": "Second"}')
    first, second = read(path)
    assert first == Record(1, Document("7", "Text", "T", {"year": "1999", "ok": "true", "list": "1", "x": "ü"}))
    assert isinstance(second, Record) and second.line == 3 and len(second.document.id) == 16


def test_fields_have_the_names_of_the_configuration(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"key": "k", "head": "H", "body": "B", "text": "other"}')
    config = IngestConfig(id_field="key", title_field="head", text_field="body")
    assert documents(read(path, config)) == [Document("k", "B", "H", {"text": "other"})]


def test_a_record_without_id_gets_one_from_its_content_and_metadata(tmp_path: Path) -> None:
    lines = ['{"text": "a"}', '{"text": "a", "n": 1}', '{"text": "b"}', '{"text": "a", "title": "t"}']
    found = [document.id for document in documents(read(written(tmp_path / "a.jsonl", "\n".join([*lines, lines[1]]))))]
    assert found[4] == found[1]
    assert len(set(found)) == 4


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
        (6, NOT_UTF8),
        (7, "field 'id' is no string but list"),
        (8, "field 'title' is no string but dict"),
        (9, "not valid JSON"),
        (10, "a number has more digits than Python reads"),
    ]
    refusal = next(item for item in items if isinstance(item, Refusal) and item.line == 5)
    assert (refusal.source, refusal.document_id) == (str(tmp_path / "a.jsonl"), "five")
    assert refusal.excerpt == '{"text": 5, "id": "five"}'


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv"])
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


def test_names_of_fields_columns_and_files_need_not_be_utf8(tmp_path: Path) -> None:
    (document,) = documents(read(written(tmp_path / "a.jsonl", r'{"id": "a", "text": "t", "k\ud800": "v"}')))
    assert document.metadata == {"k?": "v"}
    (document,) = documents(read(written(tmp_path / "a.csv", b"id,text,caf\xe9\na,t,v\n")))
    assert document.metadata == {"caf?": "v"}
    name = os.fsdecode(b"caf\xe9.txt")
    (document,) = documents(read(written(tmp_path / name, "text")))
    assert document.id == "caf?.txt"
    names = [os.fsdecode(one) for one in (b"caf\xe8.jsonl", b"caf\xe9.jsonl")]
    first, second = plan_splits([Source(f"/{one}", one) for one in names], ["0", "0"], CONFIG, "")
    assert first.key != second.key


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
        (3, NOT_UTF8),
        (4, "not valid CSV"),
        (6, "not valid CSV"),
    ]


@pytest.mark.parametrize(
    ("row", "num_lines"),
    [
        ('1,"begin\n{}\nend"', 3),
        ('1,"begin\n{}end"', 2),
        ('1,"{}\nend"', 2),
        ('1,"{}"', 1),
        ("1,{}", 1),
        ('1,"begin\n{} ""so"" ","\n","end"', 3),
        ('1,"begin\n{}', 2),
    ],
)
def test_a_record_of_csv_with_a_line_that_is_too_long_is_refused_whole_and_once(
    tmp_path: Path, row: str, num_lines: int
) -> None:
    path = written(tmp_path / "a.csv", "id,text\n0,before\n" + row.format("x" * 200_000) + "\n2,behind\n")
    items = read(path, IngestConfig(max_chars=100))
    left = ["before"] if row == '1,"begin\n{}' else ["before", "behind"]
    assert [document.text for document in documents(items)] == left
    over = {1: "", 2: " over 2 lines", 3: " over 3 lines"}[num_lines + 2 - len(left)]
    assert reasons(items) == [(3, f"longer than max_chars=100{over}")]
    if len(left) == 2:
        assert items[-1] == Record(3 + num_lines, Document("2", "behind"))


def test_a_stray_quotation_mark_shows_the_first_line_that_it_swallowed_and_how_many(tmp_path: Path) -> None:
    rows = ['1,"stray', "2,good", '3,"good"', "4,good", '5,"stray', '6,b",1', "7,good", '8,"to the end', "9,good"]
    path = written(tmp_path / "a.csv", "id,text,n\n" + "".join(f"{row},0\n" for row in rows))
    items = read(path)
    assert [document.id for document in documents(items)] == ["4", "7"]
    found = [(item.line, item.reason, item.excerpt) for item in items if isinstance(item, Refusal)]
    assert found == [
        (2, "not valid CSV over 3 lines", '1,"stray,0'),
        (6, "has 4 columns instead of 3 over 2 lines", "5,stray,0 6,b,1,0"),
        (9, "not valid CSV over 2 lines", '8,"to the end,0'),
    ]


@pytest.mark.parametrize("name", ["psgs_w100.tsv", "a.tsv.gz", "a.tsv.zst"])
def test_tsv_is_quoted_as_the_passages_of_dpr_are(tmp_path: Path, name: str) -> None:
    content = (
        'id\ttext\ttitle\n1\t"He said ""so"", and,\tleft"\tThe Title\n2\tplain, with a comma\t"A ""B"""\n3\t"a"b\tc\n'
    )
    items = read(written(tmp_path / name, content))
    assert documents(items) == [
        Document("1", 'He said "so", and,\tleft', "The Title"),
        Document("2", "plain, with a comma", 'A "B"'),
    ]
    assert reasons(items) == [(4, "not valid TSV")]


@pytest.mark.parametrize(
    ("contents", "title", "text"),
    [
        ('"Aaron"\nAaron was a prophet.', "Aaron", "Aaron was a prophet."),
        ('"The "A" Team"\nA series.\n"Quoted."', 'The "A" Team', 'A series.\n"Quoted."'),
        ('"So" he said.\nMore.', "", '"So" he said.\nMore.'),
        ("No title", "", "No title"),
    ],
)
def test_contents_are_title_and_text_where_there_is_no_text(
    tmp_path: Path, contents: str, title: str, text: str
) -> None:
    path = written(tmp_path / "a.jsonl", json.dumps({"id": "1", "contents": contents, "n": 5}))
    assert documents(read(path)) == [Document("1", text, title, {"n": "5"})]
    pq.write_table(pa.table({"id": ["1"], "contents": [contents], "n": [5]}), tmp_path / "a.parquet")
    assert documents(read(tmp_path / "a.parquet")) == documents(read(path))


def test_contents_are_metadata_beside_a_text_and_no_substitute_for_a_field_that_was_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"id": "1", "contents": "c", "text": "t"}\n{"id": "2", "contents": "c"}')
    assert documents(read(path))[0] == Document("1", "t", "", {"contents": "c"})
    assert reasons(read(path, IngestConfig(text_field="body")))[1] == (2, "no field 'body'")


def saved_dataset(folder: Path, count: int, num_shards: int = 1) -> Path:
    rows = {"id": [f"d{n}" for n in range(count)], "text": [f"text {n}" for n in range(count)], "n": list(range(count))}
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder), num_shards=num_shards)
    return folder


def test_a_dataset_saved_on_disk_yields_its_rows_in_order(tmp_path: Path) -> None:
    folder = saved_dataset(tmp_path / "ds", 1000, num_shards=3)
    items = read(folder)
    assert [document.id for document in documents(items)] == [f"d{n}" for n in range(1000)]
    assert items[334] == Record(1, Document("d334", "text 334", "", {"n": "334"}))
    assert read(folder / "data-00001-of-00003.arrow") == items[334:667]


def test_the_splits_of_a_dataset_are_read_and_what_was_cached_beside_them_is_not(tmp_path: Path) -> None:
    splits = {
        "train": datasets.Dataset.from_dict({"text": ["a", "b"]}),
        "test": datasets.Dataset.from_dict({"text": ["c"]}),
    }
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "ds"))
    shutil.copy(tmp_path / "ds" / "train" / "data-00000-of-00001.arrow", tmp_path / "ds" / "train" / "cache-1.arrow")
    assert [document.text for document in documents(read(tmp_path / "ds"))] == ["c", "a", "b"]
    assert [source.name for source in find_sources([str(tmp_path / "ds")])] == [
        "test/data-00000-of-00001.arrow",
        "train/data-00000-of-00001.arrow",
    ]


def test_a_file_of_arrow_is_read_as_a_stream_is(tmp_path: Path) -> None:
    table = pa.table({"text": [f"t{n}" for n in range(600)], "nested": [[n] for n in range(600)]})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    assert [document.text for document in documents(read(tmp_path / "a.arrow"))] == table["text"].to_pylist()


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
    unkept = ("'raw' (binary)",)
    assert items[0] == Record(1, Document("1", "a", "", {"day": "2020-01-02", "nested": "1"}), unkept)
    assert items[2] == Record(3, Document("3", "c", "", {"nested": "3"}), unkept)
    assert reasons(items) == [(2, "no field 'text'")]


def test_a_row_of_parquet_that_is_not_utf8_is_refused_alone(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"caf\xe9", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    items = read(tmp_path / "a.parquet")
    assert [document.text for document in documents(items)] == ["good", "fine"]
    assert reasons(items) == [(2, "not valid UTF-8")]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize(
    "kind", [pa.timestamp("ms"), pa.timestamp("us"), pa.date32(), pa.duration("s"), pa.timestamp("ms", tz="Mars/Base")]
)
def test_a_row_with_a_time_that_cannot_be_read_is_refused_alone(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    far = 2**31 - 1 if kind == pa.date32() else 2**62
    times = pa.array([None, far, None], pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)
    write_columns(tmp_path / name, pa.table({"text": ["a", "b", "c"], "day": times}))
    items = read(tmp_path / name)
    assert [document.text for document in documents(items)] == ["a", "c"]
    assert reasons(items) == [(2, f"field 'day' cannot be read as {kind}")]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_of_two_columns_with_one_name_the_last_one_counts(tmp_path: Path, name: str) -> None:
    write_columns(tmp_path / name, pa.table([["a"], ["x"], ["y"]], ["text", "m", "m"]))
    assert documents(read(tmp_path / name))[0].metadata == {"m": "y"}


def test_a_text_file_is_one_document_named_by_its_path_below_the_source(tmp_path: Path) -> None:
    written(tmp_path / "docs" / "sub" / "a.txt", "Some text.\n")
    assert read(tmp_path / "docs") == [Record(1, Document("sub/a.txt", "Some text.\n"))]
    assert documents(read(tmp_path / "docs" / "sub" / "a.txt"))[0].id == "a.txt"
    assert documents(read(tmp_path / "docs" / "**" / "*.txt"))[0].id == "sub/a.txt"


def test_the_first_heading_outside_of_code_is_the_title_of_markdown(tmp_path: Path) -> None:
    text = "intro\n```sh\n# no heading\n```\n\n## The heading ##\n\n# Another\n"
    assert documents(read(written(tmp_path / "a.md", text))) == [Document("a.md", text, "The heading")]


@pytest.mark.parametrize(
    "code",
    [
        "```sh\n# code\n~~~\n# code\n```",
        "~~~\n# code\n```\n# code\n~~~~ ",
        "````md\n```\n# code\n```\n# code\n````",
        "```\n# code\n``` sh\n# code\n   ```",
        "~~~ `x`\n# code\n~~~",
        "```code``` in a line",
    ],
)
def test_code_ends_with_the_fence_that_it_began_with(tmp_path: Path, code: str) -> None:
    text = f"{code}\n\n# Title\n"
    assert documents(read(written(tmp_path / "a.md", text))) == [Document("a.md", text, "Title")]


def test_a_text_file_that_is_not_utf8_is_refused_with_the_line_of_the_bad_byte(tmp_path: Path) -> None:
    items = read(written(tmp_path / "a.txt", b"one\ntwo caf\xe9\nthree"))
    assert items == [Refusal(str(tmp_path / "a.txt"), 2, "a.txt", NOT_UTF8, "byte 11 is 0xe9: two caf\ufffd")]


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


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.arrow"])
@pytest.mark.parametrize(
    "data",
    [gzip.compress(b'{"text": "a"}\n' * 1000, mtime=0), b"ARROW1" * 9, b"no such format", b""],
    ids=["gzip", "arrow", "none", "empty"],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data[:-20])
    with pytest.raises(InputError, match=rf"{name}: (cannot be read as|holds no records)"):
        read(tmp_path / name)


def test_arrow_that_points_past_its_end_is_refused_and_not_followed(tmp_path: Path) -> None:
    table = pa.table({"text": ["some text", "more of it"]})
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    data = (tmp_path / "a.arrow").read_bytes()
    offsets = (0).to_bytes(4, "little") + (9).to_bytes(4, "little") + (19).to_bytes(4, "little")
    assert data.count(offsets) == 1
    (tmp_path / "a.arrow").write_bytes(data.replace(offsets, offsets[:8] + (1 << 30).to_bytes(4, "little")))
    with pytest.raises(InputError, match=r"a\.arrow: cannot be read as arrow"):
        read(tmp_path / "a.arrow")


def test_damaged_bytes_lead_to_documents_refusals_or_an_error_and_to_nothing_else(tmp_path: Path) -> None:
    change = random.Random(0)
    table = pa.table({"id": range(50), "text": [f"text {number}" for number in range(50)]})
    with pa.ipc.new_stream(tmp_path / "whole.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    pq.write_table(table, tmp_path / "whole.parquet", row_group_size=10)
    outcomes = set()
    for suffix in ("arrow", "parquet"):
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        for _ in range(100):
            data = bytearray(whole)
            for _ in range(change.choice((1, 5))):
                data[change.randrange(len(data))] = change.randrange(256)
            (tmp_path / f"a.{suffix}").write_bytes(data)
            try:
                outcomes.add(bool(read(tmp_path / f"a.{suffix}")))
            except InputError:
                outcomes.add("error")
    assert outcomes == {True, "error"}


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.jsonl.zst", '{"text": "a"}\n' * 10_000).read_bytes()
    with pytest.raises(InputError, match=r"b\.jsonl\.zst: cannot be read as jsonl\.zst \(.*runcated"):
        (tmp_path / "b.jsonl.zst").write_bytes(whole[:-9])
        read(tmp_path / "b.jsonl.zst")
