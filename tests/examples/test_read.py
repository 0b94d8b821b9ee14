"""Examples as people have them: every source gives the same examples, and what is wrong is named with place and field."""

import csv
import gzip
import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ragray.config import ExamplesConfig
from ragray.errors import ConfigError, InputError
from ragray.examples import ExampleSource, read_examples, read_references
from ragray.types import Example

EXAMPLES = [
    Example("0", "How high is the Säntis?", ("2,502 m", "2502 metres"), ("saentis",)),
    Example("1", "Which canton is it in?", ("Appenzell", "St. Gallen"), ("saentis", "cantons")),
    Example("2", "How many summits has it?", ("2",)),
]
RECORDS: list[dict[str, object]] = [
    {"id": int(e.id), "question": e.question, "answers": list(e.answers), "gold_ids": list(e.gold_ids)}
    for e in EXAMPLES
]
GOOD = '{"id": "1", "question": "Who wrote Heidi?", "answers": ["Johanna Spyri"], "gold_ids": ["heidi"]}\n'


def lines(records: list[dict[str, object]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def cells(rows: list[list[object]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


def table(listed: Callable[[object], str]) -> list[list[object]]:
    return [["id", "question", "answers", "gold_ids"]] + [
        [r["id"], r["question"], listed(r["answers"]), listed(r["gold_ids"])] for r in RECORDS
    ]


def squad() -> dict[str, object]:
    questions = [
        {
            "id": e.id,
            "question": e.question,
            "gold_ids": e.gold_ids,
            "answers": [{"text": a, "answer_start": 1} for a in e.answers],
        }
        for e in EXAMPLES
    ]
    first, second = [{"context": "About it.", "qas": questions[:1]}, {"context": "More.", "qas": []}], questions[1:]
    articles = [
        {"title": "A", "paragraphs": first},
        {"title": "B", "paragraphs": [{"context": "Else.", "qas": second}]},
    ]
    return {"version": "1.1", "data": articles}


TEXTS: dict[str, str] = {
    "records.jsonl": lines(RECORDS),
    "lines-under-another-name.json": "\ufeff" + lines(RECORDS),
    "list.json": json.dumps(RECORDS, indent=1),
    "under-data.json": json.dumps({"version": 1, "data": RECORDS}),
    "squad.json": json.dumps(squad()),
    "json-cells.csv": cells(table(json.dumps)),
    "python-cells.csv": "\ufeff" + cells(table(repr)),
    "cells.tsv": cells(table(repr), "\t"),
    "windows.jsonl": lines(RECORDS).replace("\n", "\r\n"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_every_kind_of_text_gives_the_same_examples(tmp_path: Path, name: str, compression: str) -> None:
    data = TEXTS[name].encode()
    compress = {"": bytes, ".gz": gzip.compress, ".zst": lambda raw: pa.Codec("zstd").compress(raw).to_pybytes()}
    path = tmp_path / f"{name}{compression}"
    path.write_bytes(compress[compression](data))
    assert read_examples(path) == EXAMPLES


@pytest.mark.parametrize("large", [pa.list_(pa.string()), pa.large_list(pa.large_string())])
def test_columns_give_the_same_examples(tmp_path: Path, large: pa.DataType) -> None:
    schema = pa.schema([("id", pa.float64()), ("question", pa.string()), ("answers", large), ("gold_ids", large)])
    columns = pa.Table.from_pylist(RECORDS, schema=schema)
    pq.write_table(columns, tmp_path / "a.parquet", row_group_size=2)
    with pa.ipc.new_file(tmp_path / "a.arrow", schema) as writer:
        writer.write_table(columns)
    datasets.Dataset.from_list(RECORDS).save_to_disk(tmp_path / "saved")
    for name in ("a.parquet", "a.arrow", "saved"):
        assert read_examples(tmp_path / name) == EXAMPLES


def from_python() -> Iterator[ExampleSource]:
    frame = pandas.DataFrame(RECORDS)
    yield frame
    yield frame.set_index(pandas.Index([7, 7, 7]))
    yield pandas.DataFrame({"question": frame["question"], "answer": frame["answers"], "gold_id": frame["gold_ids"]})
    yield pandas.read_csv(io.StringIO(TEXTS["python-cells.csv"].lstrip("\ufeff")))
    yield frame.to_dict("records")
    yield RECORDS
    yield (record for record in RECORDS)
    yield datasets.Dataset.from_list(RECORDS)
    yield EXAMPLES


@pytest.mark.parametrize("source", list(from_python()))
def test_objects_of_python_give_the_same_examples(source: ExampleSource) -> None:
    assert read_examples(source) == EXAMPLES


def test_a_table_read_back_from_parquet_holds_arrays_and_gives_the_same(tmp_path: Path) -> None:
    pandas.DataFrame(RECORDS).to_parquet(tmp_path / "a.parquet")
    assert read_examples(pandas.read_parquet(tmp_path / "a.parquet")) == EXAMPLES


ONE = [Example("0", "How high is it?", ("2,502 m",))]


@pytest.mark.parametrize(
    "record",
    [
        {"question": "How high is it?", "answers": "2,502 m"},
        {"question": "How high is it?", "answer": ["2,502 m"]},
        {"question": "How high is it?", "golden_answers": ["2,502 m"], "metadata": {"answer_type": "number"}},
        {"question": "How high is it?", "answers": {"text": ["2,502 m"], "answer_start": [0]}},
        {
            "_id": "0",
            "question": "How high is it?",
            "answer": "2,502 m",
            "type": "bridge",
            "supporting_facts": [["a", 0]],
        },
        {"question_id": 0, "question": "How high is it?", "answer": {"value": "2,502 m", "aliases": []}},
        {"query_id": 0.0, "query": "How high is it?", "answers": ["2,502 m"], "passages": {"is_selected": [1]}},
        {"id": "0", "input": "How high is it?", "output": [{"answer": "2,502 m"}, {"provenance": []}]},
        {"id": "0", "question": "How high is it?", "answers": "2,502 m", "input": "a prompt", "output": ["of a model"]},
        {"id": None, "question": "How high is it?", "answers": None, "answer": "2,502 m", "gold_ids": None},
        {
            "id": 0,
            "question": "How high is it?",
            "query": "How high is it?",
            "answers": ["2,502 m"],
            "answer": "2,502 m",
        },
    ],
)
def test_the_fields_of_the_common_formats_are_known(record: dict[str, object]) -> None:
    assert read_examples([record]) == ONE


def test_other_fields_are_named_by_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "fragen.csv"
    path.write_text(
        cells([["nr", "frage", "antwort", "quelle", "question"], [0, ONE[0].question, "2,502 m", "d", "?"]])
    )
    settings = ExamplesConfig(id_field="nr", question_field="frage", answers_field="antwort", gold_field="quelle")
    assert read_examples(path, settings) == [Example("0", "How high is it?", ("2,502 m",), ("d",))]
    assert read_examples(ONE, settings) == ONE


def test_a_folder_and_a_glob_are_read_in_the_order_of_their_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, record in zip(("a.jsonl", "b.csv", "c.jsonl"), RECORDS, strict=True):
        row = [record["id"], record["question"], json.dumps(record["answers"]), json.dumps(record["gold_ids"])]
        (tmp_path / name).write_text(lines([record]) if "json" in name else cells([table(repr)[0], row]))
    (tmp_path / "README.md").write_text("# About this data")
    with caplog.at_level(logging.INFO, logger="ragray"):
        assert read_examples(tmp_path) == EXAMPLES
    assert "3 files" in caplog.text and "a.jsonl, b.csv, c.jsonl" in caplog.text
    assert read_examples(f"{tmp_path}/*.jsonl") == EXAMPLES[::2]
    assert read_examples(f"file://{tmp_path}/a.jsonl") == EXAMPLES[:1]


def test_a_uri_of_any_filesystem_is_read() -> None:
    import fsspec

    with fsspec.open("memory://examples/test.jsonl", "w") as file:
        file.write(lines(RECORDS))
    assert read_examples("memory://examples/test.jsonl") == EXAMPLES
    assert read_examples("memory://examples") == EXAMPLES


def test_only_the_columns_that_matter_are_read(tmp_path: Path) -> None:
    """The other nested columns of a file cannot even be read: their values are cut off."""
    records = [{"question": "q", "answers": ["a"], "contexts": [["long"]]}]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet", column_encoding="PLAIN", use_dictionary=False)
    path = tmp_path / "a.parquet"
    raw = path.read_bytes()
    assert raw.count(b"\x04\x00\x00\x00long") == 1
    path.write_bytes(raw.replace(b"\x04\x00\x00\x00long", b"\xff\xff\xff\x7flong"))
    assert read_examples(path) == [Example("0", "q", ("a",))]


def test_the_order_of_the_file_is_kept_and_empty_lines_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(GOOD.strip().replace('"1"', f'"{id}"') + "\n  " for id in "312"))
    assert [example.id for example in read_examples(path)] == ["3", "1", "2"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "a.jsonl"
    question = f"two{separator}lines"
    path.write_text(json.dumps({"id": "1", "question": question, "answers": ["a"]}, ensure_ascii=False))
    assert read_examples(path)[0].question == question


# What is refused.


def refusal(source: ExampleSource, settings: ExamplesConfig | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_examples(source, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{not json", "not valid JSON; mend or remove it"),
        (b'{"id": "\xfc"}', "not valid UTF-8; mend or remove it"),
        ('["1", "q"]', "not a JSON object; mend or remove it"),
        ('{"id": true, "question": "q", "answers": ["a"]}', "field 'id' must be a text or a number (found True)"),
        ('{"id": " ", "question": "q", "answers": ["a"]}', "field 'id' is blank (found ' ')"),
        ('{"id": "2", "answers": ["a"]}', "no field 'question'; the fields are: id, answers; map it with"),
        ('{"id": "2", "question": "\\u200b", "answers": ["a"]}', "field 'question' is blank (found '\\u200b')"),
        ('{"id": "2", "question": ["q"], "answers": ["a"]}', "field 'question' must be a text (found ['q'])"),
        ('{"id": "2", "question": null, "answers": ["a"]}', "field 'question' must be a text (found null)"),
        ('{"id": "2", "question": "q"}', "no field 'answers'; the fields are: id, question; map it with"),
        ('{"id": "2", "question": "q", "answers": []}', "field 'answers' is empty; give at least one accepted answer"),
        ('{"id": "2", "question": "q", "answers": null}', "field 'answers' must be a text, a number or a list of them"),
        ('{"id": "2", "question": "q", "answers": NaN}', "field 'answers' is no finite number (found nan)"),
        (
            '{"id": "2", "question": "q", "answers": ["a"], "gold_ids": {}}',
            "field 'gold_ids' must be a text or a number",
        ),
        (
            '{"id": "2", "question": "q", "answers": ["a"], "answer": "b"}',
            "fields 'answers' and 'answer' hold different values; say which one counts, for instance with "
            "examples.answers_field=answers",
        ),
        (
            '{"id": "2", "question": "q", "answers": ["a"], "answer": {"span": [0, 4]}}',
            "field 'answer' must be a text, a number or a list of them (found {'span': [0, 4]}); "
            "or say which field counts, for instance with examples.answers_field=answers",
        ),
        ('{"id": "2", "question": "q \\ud83d", "answers": ["a"]}', "field 'question': character 3 ('\\ud83d') cannot"),
        (
            '{"id": "2", "question": "q", "answers": ["a", "\\udce9"]}',
            "field 'answers', item 1: character 1 ('\\udce9')",
        ),
        (
            '{"id": "\\ud83d", "question": "q", "answers": ["a"]}',
            "field 'id': character 1 ('\\ud83d') cannot be written",
        ),
        (
            '{"id": "2", "question": "q", "answers": ["a"], "gold_ids": ["\\ud83d"]}',
            "field 'gold_ids', item 0: character 1",
        ),
        ('{"id": "2", "question": "q\\u0000", "answers": ["a"]}', "field 'question': character 2 is NUL"),
        (
            '{"question": "q", "answers": ["a"]}',
            "no field 'id'; the fields are: question, answers; map it with examples.id_field",
        ),
    ],
)
def test_a_bad_line_is_named_with_file_line_and_field(tmp_path: Path, line: str | bytes, complaint: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    assert refusal(path).startswith(f"{path}:3: {complaint}")


def test_the_first_bad_record_is_named_and_the_others_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD + '{"id": 2, "question": "q", "answers": []}\n' + '{"id": 3, "question": ""}\n' + "{\n")
    assert (
        refusal(path)
        == f"{path}:2: field 'answers' is empty; give at least one accepted answer; 2 more records are wrong"
    )
    path.write_text(GOOD + "{\n" + '{"question": "q", "answers": "a"}\n')
    assert refusal(path) == f"{path}:2: not valid JSON; mend or remove it; 1 more record is wrong"


def test_a_doubled_id_is_named_with_both_places(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(GOOD)
    (tmp_path / "b.csv").write_text("id,question,answer\n7,q,a\n1,q,a\n")
    message = refusal(tmp_path)
    assert message == f"{tmp_path}/b.csv:3: id '1' stands at {tmp_path}/a.jsonl:1 too; ids must be unique"


def test_ids_in_some_records_alone_are_refused_with_the_first_that_has_none() -> None:
    records = [
        {"question": "q", "answers": "a"},
        {"id": 4, "question": "q", "answers": "a"},
        {"question": "q", "answers": "a"},
    ]
    message = refusal(records)
    assert message.startswith("row 0: no field 'id'; ")
    assert "the record at row 1 has an id: give one to every record, or to none; 1 more record is wrong" in message


@pytest.mark.parametrize("settings", [ExamplesConfig(), ExamplesConfig(id_field="id")])
def test_an_id_that_is_empty_in_some_rows_is_said_as_that(settings: ExamplesConfig) -> None:
    frame = pandas.DataFrame({"id": [1, None], "question": "q", "answer": "a"})
    assert refusal(frame, settings).startswith(
        "row 1: field 'id' is empty; the record at row 0 has an id: give one to every"
    )


@pytest.mark.parametrize(
    ("fields", "settings", "message"),
    [
        (
            ["frage", "antwort"],
            {},
            "no field 'question'; the fields are: frage, antwort; map it with examples.question_field=FIELD",
        ),
        (
            ["frage", "answer"],
            {},
            "no field 'question'; the fields are: frage, answer; map it with examples.question_field=frage",
        ),
        (
            ["Question", "Answer"],
            {},
            "no field 'question'; the fields are: Question, Answer; map it with examples.question_field=Question",
        ),
        (
            ["question", "lang", "answer_text", "source"],
            {},
            "no field 'answers'; the fields are: question, lang, answer_text, source; "
            "map it with examples.answers_field=answer_text",
        ),
        (
            ["question", "anwsers", "source"],
            {},
            "no field 'answers'; the fields are: question, anwsers, source; map it with examples.answers_field=anwsers",
        ),
        (
            ["frage", "answer"],
            {"question_field": "fragen"},
            "no field 'fragen', which examples.question_field names; the fields are: frage, answer, "
            "did you mean examples.question_field=frage?",
        ),
        (
            ["question", "answer"],
            {"id_field": "nr"},
            "no field 'nr', which examples.id_field names; the fields are: question, answer; correct examples.id_field",
        ),
        (
            ["question", "answer"],
            {"gold_field": "quelle"},
            "no field 'quelle', which examples.gold_field names; the fields are: question, answer; correct examples.gold_field",
        ),
        (
            ["instruction", "input", "output"],
            {},
            "no field 'question'; the fields are: instruction, input, output; map it with",
        ),
    ],
)
def test_a_missing_field_is_said_with_the_fields_that_are_there(
    tmp_path: Path, fields: list[str], settings: dict[str, str], message: str
) -> None:
    path = tmp_path / "train.csv"
    path.write_text(cells([fields, ["text"] * len(fields)]))
    assert refusal(path, ExamplesConfig(**settings)).startswith(f"{path}:2: {message}")


def test_the_fields_of_columns_are_said_with_the_nested_ones(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"question": "q", "labels": ["a"]}]), tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet").startswith(
        f"{tmp_path}/a.parquet: row 1: no field 'answers'; the fields are: question, labels; "
        "map it with examples.answers_field=labels"
    )


def test_many_fields_are_listed_up_to_a_limit() -> None:
    message = refusal([{f"column {number}": 1 for number in range(500)}])
    assert "column 19 and 480 more; map it" in message


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "question,answer,answer\nq,a,b\n", ": has two columns 'answer'; rename or remove one"),
        ("a.csv", "question;answer\nq;a\n", ": has one column, 'question;answer'; it seems to be split by ';'"),
        ("a.csv", "question,answer\nq,a,b\n", ":2: has 3 columns instead of 2; mend or remove it"),
        ("a.tsv", "question\tanswer\n\ta\n", ":2: field 'question' is blank (found '')"),
        ("a.csv", "question,answer\nq,[]\n", ":2: field 'answer' is empty; give at least one accepted answer"),
        ("a.csv", b"question,answer\nq,\xfc\n", ":2: not valid UTF-8; mend or remove it"),
        ("a.csv", "question,answer\nq,['a' 'b']\n", ":2: field 'answer' looks like a list but is none"),
        ("a.csv", "question,answer\n", ': is empty; expected records such as {"id": "1"'),
        ("a.jsonl", "\n  \n", ': is empty; expected records such as {"id": "1"'),
        ("a.json", '[{"question": "q", "answer": "a"},\n 7]', ":2 at [1]: not a JSON object; mend or remove it"),
        ("a.json", '[{"question": "q", "answer": "a"}', ":1: is not valid JSON (it ends too early)"),
        ("a.json", '{"a": 1,\n "b": 2}', ": is neither SQuAD (data[].paragraphs[].context) nor a list of records"),
        (
            "a.json",
            '{"data": [{"paragraphs": [{"qas": [{"question": "q", "answers": [], "id": 1}]}]}]}',
            ":1 at data[0].paragraphs[0].qas[0]: field 'answers' is empty; give at least one accepted answer",
        ),
        (
            "a.json",
            '{"data": [{"paragraphs": [{"context": "c"}]}]}',
            ":1 at data[0].paragraphs[0]: field 'qas' must be a list of objects, as in SQuAD",
        ),
        ("a.parquet", "no parquet", ": cannot be read as parquet ("),
        ("a.jsonl.gz", "no gzip", ": cannot be read as jsonl.gz ("),
        ("a.txt", "What?", ": a .txt file holds no examples; convert it to one of .jsonl, .csv"),
        ("a.xlsx", "no text", ": the format is not supported; convert it to one of .jsonl"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, name: str, content: str | bytes, complaint: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert refusal(path).startswith(f"{path}{complaint}")


def test_the_line_that_an_empty_file_is_answered_with_can_be_copied(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("")
    path.write_text(refusal(path).partition("such as ")[2])
    assert len(read_examples(path)) == 1


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.jsonl") == f"{tmp_path}/no.jsonl: no such file or folder; check the path"


def test_of_a_dataset_with_splits_one_must_be_named(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(RECORDS)
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "saved")
    message = refusal(tmp_path / "saved")
    assert message == f"{tmp_path}/saved: holds the splits train, test; name one, for instance {tmp_path}/saved/train"
    assert read_examples(tmp_path / "saved" / "test") == EXAMPLES
    assert refusal(datasets.DatasetDict({"train": rows, "test": rows})).startswith(
        "examples: is a DatasetDict of train, test; give one split"
    )


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            [{"question": "q", "answer": "a"}, {"question": "q \ud83d", "answer": "a"}],
            "row 1: field 'question': character 3",
        ),
        (
            pandas.DataFrame({"question": ["q", None], "answer": "a"}),
            "row 1: field 'question' must be a text (found null)",
        ),
        (
            pandas.DataFrame([["q", "a", "b"]], columns=["question", "answer", "answer"]),
            "examples: has two columns 'answer'",
        ),
        (["train.jsonl", "more.jsonl"], "row 0: is a str, expected a mapping with question and answers, or an Example"),
        ({"question": ["q"], "answer": ["a"]}, "examples: is a dict of question, answer; give one split of a dataset"),
        (7, "examples: is a int, expected a path, a DataFrame or a list of records"),
        ("", "examples: the path is empty; give a file, a folder, a glob or a URI"),
        ([], "examples: there are none; expected records with question and answers"),
        ([Example("1", "q", ("a",)), Example("1", "q", ("a",))], "row 1: id '1' stands at row 0 too"),
    ],
)
def test_an_object_that_is_wrong_is_named_with_its_row(source: ExampleSource, complaint: str) -> None:
    assert refusal(source).startswith(complaint)


# Blank answers, control characters.

BLANKS = ["", "  ", "\u200b", "\ufeff", "\u00a0\n", "\x07"]


def test_blank_answers_are_left_out_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    records = [
        {"id": "a", "question": "q", "answers": ["Bern"]},
        {"id": "b", "question": "q", "answers": [*BLANKS, "Bern", " Berne "]},
        {"id": "c", "question": "q", "answers": BLANKS[:2]},
        {"id": "d", "question": "q", "answers": {"text": [], "answer_start": []}},
    ]
    path.write_text(lines(records))
    with caplog.at_level(logging.WARNING, logger="ragray"):
        assert read_examples(path) == [Example("a", "q", ("Bern",)), Example("b", "q", ("Bern", " Berne "))]
    blanks = [record.message for record in caplog.records if "blank" in record.message]
    assert blanks == [
        f"examples: 9 blank answers are left out (first: {path}:2); 2 of 4 examples have no other answer and are left out too"
    ]


def test_an_empty_cell_is_a_blank_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nq,Bern\nr,\n")
    for source in (path, pandas.read_csv(path)):
        assert read_examples(source) == [Example("0", "q", ("Bern",))]
    assert caplog.text.count("1 of 2 examples have no other answer") == 2


def test_numbers_for_ids_do_not_depend_on_what_is_left_out() -> None:
    records = [{"question": "q", "answers": answer} for answer in ("", "Bern", " ", "Berne")]
    assert [example.id for example in read_examples(records)] == ["1", "3"]


def test_without_any_answer_there_is_nothing_to_read() -> None:
    message = refusal([{"question": "q", "answers": BLANKS}, {"question": "q", "answers": [" "]}])
    assert message == "row 0: the accepted answers of all 2 examples are blank; give answers with visible characters"


def test_nothing_is_said_of_what_is_right(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ragray"):
        read_examples(RECORDS)
    assert caplog.text == ""


def test_control_characters_are_kept_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    records = [{"question": "q\tq", "answers": "a\x0c"}, {"question": "q", "answers": ["a", "don\x92t"]}] * 3
    assert read_examples(records)[1].answers == ("a", "don\x92t")
    assert [record.message for record in caplog.records] == [
        "examples: 3 of 6 hold control characters, which some tokenizers drop; they are kept (first: row 1, 'don\\x92t')"
    ]


def test_a_text_that_spells_a_list_is_kept_where_lists_can_be_written_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert read_examples([{"question": "q", "answers": "['Bern']"}]) == [Example("0", "q", ("['Bern']",))]
    assert caplog.messages == [
        "examples: 1 of 1 hold a list written as a text, which is taken as it stands (first: row 0, \"['Bern']\")"
    ]


# References, to score predictions against.


def test_references_keep_blank_answers_and_need_no_question(caplog: pytest.LogCaptureFixture) -> None:
    records = [{"id": 1, "answers": [""]}, {"id": 2, "question": "", "answers": ["a", " "]}]
    assert read_references(records) == [Example("1", "", ("",)), Example("2", "", ("a", " "))]
    assert caplog.text == ""


def test_an_impossible_question_of_squad_has_the_empty_answer(tmp_path: Path) -> None:
    questions = [
        {"id": "1", "question": "q", "is_impossible": True, "answers": [], "plausible_answers": [{"text": "p"}]},
        {"id": "2", "question": "q", "is_impossible": False, "answers": [{"text": "a", "answer_start": 0}]},
    ]
    path = tmp_path / "dev-v2.0.json"
    path.write_text(json.dumps({"version": "v2.0", "data": [{"paragraphs": [{"context": "c", "qas": questions}]}]}))
    assert [example.answers for example in read_references(path)] == [("",), ("a",)]
    assert read_examples(path) == [Example("2", "q", ("a",))]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            "answer,note\na,n\n",
            ":2: no field 'id'; the fields are: answer, note; map it with examples.id_field=FIELD (a prediction finds",
        ),
        ("id,answer\n1,\n", ":2: field 'answer' is empty; write [\"\"] where the right prediction is empty"),
        (
            "id,lösung\n1,a\n",
            ":2: no field 'answers'; the fields are: id, lösung; map it with examples.answers_field=lösung",
        ),
    ],
)
def test_references_without_ids_or_answers_are_refused(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_references(path)
    assert str(caught.value).startswith(f"{path}{complaint}")


def test_an_empty_reference_is_written_as_a_list_in_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,answers\n1,"[""""]"\n')
    assert read_references(path) == [Example("1", "", ("",))]


def test_a_record_without_a_field_is_named_by_its_line_however_far_down(tmp_path: Path) -> None:
    records: list[dict[str, object]] = [{"question": f"what is {n}?", "answers": [str(n)]} for n in range(900)]
    del records[811]["answers"]
    (tmp_path / "train.jsonl").write_text(lines(records))
    with pytest.raises(InputError, match=r"train\.jsonl:812: no field 'answers'; the fields are: question;"):
        read_examples(tmp_path / "train.jsonl")


TEMPLATE = ExamplesConfig(question_template="Into {to}: {input}", answers_field="target")
TASKS: list[dict[str, object]] = [
    {"input": "Good day.", "to": "de", "target": "Guten Tag."},
    {"input": "{to}", "to": "fr", "target": "{to}"},
]


def test_a_template_makes_the_question_of_several_fields() -> None:
    """What stands in braces in a field is its text."""
    found = read_examples(TASKS, TEMPLATE)
    assert [example.question for example in found] == ["Into de: Good day.", "Into fr: {to}"]
    assert read_examples(found, TEMPLATE) == found


def test_a_field_of_a_template_that_is_missing_is_named() -> None:
    with pytest.raises(
        InputError, match=r"row 1: no field 'to', which examples\.question_template names.*input, target"
    ):
        read_examples([TASKS[0], {"input": "x", "target": "y"}], TEMPLATE)
    with pytest.raises(ConfigError, match="names no field"):
        read_examples(TASKS, ExamplesConfig(question_template="Translate", answers_field="target"))
