"""What SQuAD and lists of records in JSON yield, in bounded memory, and what is no such file."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from ragray.config import IngestConfig
from ragray.corpus.read.documents import read_source
from ragray.corpus.read.find import find_sources
from ragray.corpus.read.json_trees import read_json
from ragray.corpus.read.record import Record, Refusal
from ragray.errors import InputError
from ragray.types import Document


def read(path: Path, content: object) -> list[Record | Refusal]:
    data = content.encode() if isinstance(content, str) else json.dumps(content, indent=1).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return [item for source in find_sources([str(path)]) for item in read_source(source, IngestConfig())]


def article(title: str, *contexts: object) -> dict[str, object]:
    return {"title": title, "paragraphs": [{"qas": [{"question": "?"}], "context": context} for context in contexts]}


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_squad_yields_each_context_once_with_the_title_of_its_article(tmp_path: Path, name: str) -> None:
    data = [article("Super_Bowl", "First.", "Second.", "First.", "Fourth."), article("Other", "First.")]
    items = read(tmp_path / name, {"version": "1.1", "extra": {"data": 1}, "data": data})
    assert [item.document for item in items if isinstance(item, Record)] == [
        Document("Super_Bowl-0", "First.", "Super Bowl"),
        Document("Super_Bowl-1", "Second.", "Super Bowl"),
        Document("Super_Bowl-3", "Fourth.", "Super Bowl"),
        Document("Other-0", "First.", "Other"),
    ]


def test_articles_of_one_title_do_not_share_ids_and_one_without_title_is_named_by_its_file(tmp_path: Path) -> None:
    items = read(tmp_path / "wiki.json", {"data": [article("A", "x"), article("A", "y"), article("", "z")]})
    assert [item.document.id for item in items if isinstance(item, Record)] == ["A-0", "A-1", "wiki-0"]


def test_lone_surrogates_and_a_file_name_that_is_not_utf8_stop_nothing(tmp_path: Path) -> None:
    items = read(tmp_path / os.fsdecode(b"caf\xe9.json"), r'{"data": [{"paragraphs": [{"context": "a\ud800"}]}]}')
    assert [item.document for item in items if isinstance(item, Record)] == [Document("caf?-0", "a\ud800")]


def test_a_paragraph_without_context_is_refused_with_the_line_of_its_article(tmp_path: Path) -> None:
    text = '{"data": [\n {"title": "A", "paragraphs": [{"context": "x"}]},\n {"title": "B", "paragraphs": [{}, 5]}]}'
    first, *refused = read(tmp_path / "a.json", text)
    assert isinstance(first, Record) and first.line == 2
    assert [(item.line, item.document_id, item.reason) for item in refused if isinstance(item, Refusal)] == [
        (3, "B-0", "no field 'context'"),
        (3, "B-1", "no field 'context'"),
    ]


def test_a_list_of_records_is_read_as_lines_are(tmp_path: Path) -> None:
    text = '[{"id": 1, "text": "one", "n": 2},\n\n{"id": 2},\n3, {"text": "last", "title": "T"}\n]'
    items = read(tmp_path / "a.json", text)
    assert items[0] == Record(1, Document("1", "one", "", {"n": "2"}))
    assert [(item.line, item.reason) for item in items[1:3] if isinstance(item, Refusal)] == [
        (3, "no field 'text'"),
        (4, "not a JSON object"),
    ]
    assert isinstance(items[3], Record) and items[3].document.title == "T"


@pytest.mark.parametrize("content", [{"name": "package", "version": "1"}, {"data": {"x": 1}}, "5", '"data"', {}])
def test_json_that_is_neither_says_what_was_expected(tmp_path: Path, content: object) -> None:
    with pytest.raises(InputError, match=r"a\.json: is neither SQuAD .* nor a list of records; convert it"):
        read(tmp_path / "a.json", content)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", 1),
        ('[{"text": "x"}\n', 2),
        ('[{"text": "x"},\n{"text": "y" "z"}]', 2),
        ('[{"text": "x"}\n{"text": "y"}]', 2),
        ("[" * 100_000, 1),
        ('{"data"\n [', 2),
        ('[{"text": "x"},\n{"n": ' + "9" * 5000 + "}]", 2),
    ],
)
def test_broken_json_is_named_with_the_line(tmp_path: Path, content: str, line: int) -> None:
    with pytest.raises(InputError, match=rf"a\.json:{line}: is not valid JSON"):
        read(tmp_path / "a.json", content)


@pytest.mark.parametrize(
    ("content", "line", "excerpt"),
    [
        ('[{"text": "x"}]\n[{"text": "y"}]\n', 2, '[{"text": "y"}]'),
        ('{"data": [{"text": "x"}], trunc', 1, "trunc"),
        ('{"data": [{"text": "x"}]\n', 2, ""),
        ('{"data": [{"text": "x"}], "n": 1,\n}', 2, "}"),
        ('{"data": [{"text": "x"}]}\n{"data": []}', 2, '{"data": []}'),
    ],
)
def test_what_follows_the_list_and_is_no_json_is_refused_and_the_list_stays(
    tmp_path: Path, content: str, line: int, excerpt: str
) -> None:
    path = tmp_path / "a.json"
    record, *refused = read(path, content)
    assert isinstance(record, Record) and record.document.text == "x"
    assert refused == [Refusal(str(path), line, "", "not valid JSON behind the list", excerpt)]


def test_other_fields_may_follow_the_list(tmp_path: Path) -> None:
    text = '{"data": [{"text": "x"}], "version": "1.1", "more": {"data": [1]}}\n\n'
    assert len(read(tmp_path / "a.json", text)) == 1


def test_json_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"text": "caf\xe9"}]')
    with pytest.raises(InputError, match=r"a\.json:1: is not valid JSON \(not valid UTF-8\)"):
        list(read_source(find_sources([str(tmp_path / "a.json")])[0], IngestConfig()))


def test_one_record_is_held_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    records = (json.dumps({"id": str(number), "text": "x" * 1000}) for number in range(4000))
    path.write_text(f"[{(',' + chr(10)).join(records)}]", encoding="utf-8")
    (source,) = find_sources([str(path)])
    tracemalloc.start()
    lines = [item.line for item in read_json(source, IngestConfig(), chunk_chars=1 << 14)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines == list(range(1, 4001))
    assert peak < 1_000_000


def test_a_value_may_lie_across_any_number_of_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"n": 12, "data": [{"text": "one", "n": 345}, {"text": "two"}]}, indent=1))
    (source,) = find_sources([str(path)])
    items = list(read_json(source, IngestConfig(), chunk_chars=1))
    assert [(item.line, item.document.text) for item in items if isinstance(item, Record)] == [(4, "one"), (8, "two")]
