"""Triples on disk: what is written is read again; what is wrong is named."""

from pathlib import Path

import pytest

from ragray.errors import InputError, NotAnArtifactError
from ragray.retrieve.mining.triples import Triple, read_triples, triples_file, write_triples

FIRST = Triple(
    id="q1", question="where?", positive="T\nhere", positive_id="p1", positive_score=0.5, gold_ids=("p1", "p2"),
    negative="there", negative_id="n1", negative_score=0.25, score=1.5,
)  # fmt: skip
SECOND = FIRST.model_copy(update={"negative_id": "n2", "score": None})
OTHER = Triple(id="q2", question="who?", positive="she", positive_id="p3", positive_score=0.1)


def test_what_is_written_is_read_again_by_question(tmp_path: Path) -> None:
    write_triples(tmp_path / "t.jsonl", [FIRST, SECOND, OTHER])
    assert read_triples(tmp_path / "t.jsonl") == [[FIRST, SECOND], [OTHER]]


def test_the_columns_of_sentence_transformers_come_first_among_the_texts(tmp_path: Path) -> None:
    from datasets import load_dataset

    write_triples(tmp_path / "t.jsonl", [FIRST, FIRST])
    table = load_dataset("json", data_files=str(tmp_path / "t.jsonl"), split="train", cache_dir=str(tmp_path / "cache"))
    columns = table.select_columns(["question", "positive", "negative", "score"])
    assert columns[0] == {"question": "where?", "positive": "T\nhere", "negative": "there", "score": 1.5}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "holds no triples"),
        ('{"id": "q"}', r"t\.jsonl:1: field 'question': Field required"),
        ('{"id": "q1", "question": 7}', r"t\.jsonl:1: field 'question': Input should be a valid string"),
        ("nonsense", r"t\.jsonl:1: Invalid JSON"),
    ],
)
def test_a_wrong_line_is_named_with_its_field(lines: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_triples(tmp_path / "t.jsonl")


def test_lines_of_a_question_that_stand_apart_are_refused(tmp_path: Path) -> None:
    write_triples(tmp_path / "t.jsonl", [FIRST, OTHER, SECOND])
    with pytest.raises(InputError, match="the lines of question 'q1' do not stand together"):
        read_triples(tmp_path / "t.jsonl")


def test_a_file_that_is_not_there_and_a_folder_that_is_not_whole_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_triples(tmp_path / "absent.jsonl")
    with pytest.raises(NotAnArtifactError, match="run: ragray mine"):
        triples_file(tmp_path)
