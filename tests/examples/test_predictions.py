"""Predictions: what is read, and how a bad one is named."""

import json
from pathlib import Path

import pytest

from ragray.errors import InputError
from ragray.examples import read_predictions

TEXTS = {"1": "Paris", "2": "", "3": "two\nlines\u2028and a third"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "predictions.json"


def refusal(file: Path, content: str | bytes) -> str:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_predictions(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_predictions_are_read_letter_by_letter(file: Path) -> None:
    file.write_text(json.dumps(TEXTS, ensure_ascii=False, indent=1), encoding="utf-8")
    assert read_predictions(file) == TEXTS


@pytest.mark.parametrize("id_name", ["id", "qid"])
def test_a_line_a_prediction_is_the_same(file: Path, id_name: str) -> None:
    lines = [json.dumps({id_name: int(key), "prediction": text}) for key, text in TEXTS.items()]
    file.write_text("\n".join(lines))
    assert read_predictions(file) == TEXTS


def test_an_object_is_one_whatever_its_file_is_called(tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    file.write_text(json.dumps(TEXTS))
    assert read_predictions(file) == TEXTS


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is not JSON"),
        ('{"1": ', "is not JSON"),
        (b'{"1": "\xe9"}', "is not UTF-8 at byte 7"),
        ('["Paris"]', "holds a JSON list, expected one object of id to text"),
        ('{"1": "Paris", "2": null}', "prediction '2' is a NoneType, expected a text"),
        ('{"1": ["Paris"]}', "prediction '1' is a list, expected a text"),
        ('{"1": {"text": "Paris"}}', "prediction '1' is a dict, expected a text"),
        ('{"1": NaN}', "is not JSON (NaN is not JSON's)"),
        ('{"1": "Paris", "2": "Bonn", "1": "Rome"}', "prediction '1' stands twice"),
        ('{"1": "Caf\\udce9"}', "prediction '1': character 4 ('\\udce9') cannot be written as UTF-8"),
        ('{"\\ud83d": "Paris"}', "prediction '?': its id: character 1 ('\\ud83d') cannot be written as UTF-8"),
    ],
)
def test_predictions_of_another_form_are_refused_with_the_id(file: Path, content: str | bytes, complaint: str) -> None:
    assert refusal(file, content).startswith(f"{file}: {complaint}")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not valid JSON; mend or remove it"),
        ('{"id": "2"}', "no field 'prediction'; expected lines of "),
        ('{"prediction": "Bonn"}', "no field 'id'; expected lines of "),
        ('{"id": "1", "prediction": "Bonn"}', "prediction '1' stands twice"),
        ('{"id": true, "prediction": "Bonn"}', "field 'id' must be a text or a number (found True)"),
    ],
)
def test_a_line_that_is_wrong_is_named(file: Path, line: str, complaint: str) -> None:
    assert refusal(file, f'{{"id": "1", "prediction": "Paris"}}\n\n{line}\n').startswith(f"{file}:3: {complaint}")


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(InputError, match=r"predictions\.json: cannot be read \(No such file"):
        read_predictions(file)
