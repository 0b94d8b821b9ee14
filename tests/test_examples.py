"""Files of examples and predictions: what is read, and how a bad line is named."""

import json
from pathlib import Path

import pytest

from ragray.errors import InputError
from ragray.examples import read_examples, read_predictions
from ragray.types import Example

GOOD = '{"id": "1", "question": "Who wrote Hamlet?", "answers": ["Shakespeare"], "gold_ids": ["hamlet"]}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "examples.jsonl"


def refusal(file: Path, content: str | bytes, *, need_question: bool = True) -> str:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_examples(file, need_question=need_question)
    return str(caught.value)


def test_an_example_is_read_with_all_its_fields(file: Path) -> None:
    file.write_text(GOOD)
    assert read_examples(file) == [Example("1", "Who wrote Hamlet?", ("Shakespeare",), ("hamlet",))]


def test_gold_ids_may_be_left_out(file: Path) -> None:
    file.write_text('{"id": "1", "question": "q", "answers": ["a", "b"]}')
    assert read_examples(file) == [Example("1", "q", ("a", "b"))]


def test_the_question_may_be_left_out_where_only_answers_are_scored(file: Path) -> None:
    file.write_text('{"id": "1", "answers": ["a"]}')
    assert read_examples(file, need_question=False) == [Example("1", "", ("a",))]


def test_the_order_of_the_file_is_kept_and_empty_lines_do_not_count(file: Path) -> None:
    file.write_text("\n".join(GOOD.strip().replace('"1"', f'"{id}"') + "\n  " for id in "312"))
    assert [example.id for example in read_examples(file)] == ["3", "1", "2"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_a_line_separator_inside_a_text_does_not_end_the_line(file: Path, separator: str) -> None:
    question = f"two{separator}lines"
    file.write_text(json.dumps({"id": "1", "question": question, "answers": ["a"]}, ensure_ascii=False))
    assert read_examples(file)[0].question == question


@pytest.mark.parametrize("content", [GOOD.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + GOOD.encode()])
def test_files_written_on_windows_are_read(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert read_examples(file)[0].id == "1"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{not json", "is not JSON"),
        ('["1", "q"]', "is a JSON list, expected an object"),
        ('{"question": "q", "answers": ["a"]}', "field 'id' must be a string (found None)"),
        ('{"id": 7, "question": "q", "answers": ["a"]}', "field 'id' must be a string (found 7)"),
        ('{"id": "2", "answers": ["a"]}', "field 'question' must be a text (found None)"),
        ('{"id": "2", "question": " ", "answers": ["a"]}', "field 'question' must be a text (found ' ')"),
        ('{"id": "2", "question": ["q"], "answers": ["a"]}', "field 'question' must be a text (found ['q'])"),
        ('{"id": "2", "question": "q"}', "field 'answers' is empty"),
        ('{"id": "2", "question": "q", "answers": []}', "field 'answers' is empty"),
        ('{"id": "2", "question": "q", "answers": "a"}', "field 'answers' must be a list of strings (found 'a')"),
        ('{"id": "2", "question": "q", "answers": [1]}', "field 'answers' must be a list of strings (found '[1]')"),
        ('{"id": "2", "question": "q", "answers": null}', "field 'answers' must be a list of strings (found 'None')"),
        ('{"id": "2", "question": "q", "answers": ["a"], "gold_ids": "x"}', "field 'gold_ids' must be a list"),
        (GOOD.strip(), "id '1' stands on an earlier line too"),
    ],
)
def test_a_bad_line_is_named_with_file_line_and_field(file: Path, line: str, complaint: str) -> None:
    message = refusal(file, f"{GOOD}\n{line}\n")
    assert message.startswith(f"{file}:3: {complaint}")
    assert "\n" not in message


def test_a_question_that_is_no_text_is_refused_even_where_it_is_not_needed(file: Path) -> None:
    assert "field 'question'" in refusal(file, '{"id": "1", "question": 3, "answers": ["a"]}', need_question=False)


@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_an_empty_file_is_answered_with_a_line_to_copy(file: Path, content: str) -> None:
    message = refusal(file, content)
    assert message.startswith(f"{file}: is empty; expected lines such as ")
    file.write_text(message.partition("such as ")[2])
    assert len(read_examples(file)) == 1


def test_a_file_that_is_not_utf8_is_named_with_the_byte(file: Path) -> None:
    assert refusal(file, b'{"id": "\xfc"}').startswith(f"{file}: is not UTF-8 at byte 8")


@pytest.mark.parametrize("read", [read_examples, read_predictions])
def test_a_file_that_is_not_there_is_named(file: Path, read: type[object]) -> None:
    with pytest.raises(InputError, match=r"examples\.jsonl: cannot be read \(No such file"):
        read(file)  # type: ignore[call-arg] # a path is all it needs here


def test_predictions_are_read_letter_by_letter(file: Path) -> None:
    predictions = {"1": "Paris", "2": "", "3": "two\nlines\u2028and a third"}
    file.write_text(json.dumps(predictions, ensure_ascii=False, indent=1), encoding="utf-8")
    assert read_predictions(file) == predictions


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is not JSON"),
        ('{"1": ', "is not JSON"),
        ('["Paris"]', "holds a JSON list, expected one object of id to text"),
        ('{"1": "Paris", "2": null}', "prediction '2' is a NoneType, expected a text"),
        ('{"1": ["Paris"]}', "prediction '1' is a list, expected a text"),
    ],
)
def test_predictions_of_another_form_are_refused_with_the_id(file: Path, content: str, complaint: str) -> None:
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        read_predictions(file)
    assert str(caught.value).startswith(f"{file}: {complaint}")
