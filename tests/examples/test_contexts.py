"""Examples of DPR, of Fusion-in-Decoder and of the RAG fine-tuning of `transformers`, as their files hold them."""

import json
from pathlib import Path

import pytest

from ragray.errors import InputError
from ragray.examples import read_examples

DPR = {
    "dataset": "made-up",
    "question": "which lake feeds the mill?",
    "answers": ["the upper lake", "Upper Lake"],
    "positive_ctxs": [
        {"title": "Mill", "text": "It is fed by the upper lake.", "score": 9.1, "passage_id": "31"},
        {"title": "Lake", "text": "The upper lake.", "psg_id": 32},
        {"title": "Lake", "text": "The upper lake, again.", "psg_id": "32"},
        {"title": "Old", "text": "A passage of a file without ids."},
    ],
    "negative_ctxs": [{"title": "Sea", "text": "Salt.", "passage_id": "7"}],
    "hard_negative_ctxs": [],
}
FID = {
    "question": "when was it built?",
    "target": "1911",
    "answers": ["1911"],
    "ctxs": [
        {"id": "5", "title": "Mill", "text": "Built in 1911.", "score": "80.1", "hasanswer": True},
        {"id": "6", "title": "Dam", "text": "Built later.", "score": "79.0", "hasanswer": False},
        {"id": "8", "title": "Weir", "text": "Of stone."},
    ],
}


@pytest.mark.parametrize("name", ["train.json", "train.jsonl"])
def test_the_passages_with_the_answer_are_gold(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    records = [DPR, FID]
    path.write_text(
        json.dumps(records, indent=2) if name == "train.json" else "".join(json.dumps(r) + "\n" for r in records)
    )
    first, second = read_examples(path)
    assert (first.question, first.answers, first.gold_ids) == (
        DPR["question"],
        ("the upper lake", "Upper Lake"),
        ("31", "32"),
    )
    assert (second.question, second.answers, second.gold_ids) == ("when was it built?", ("1911",), ("5",))


def test_gold_ids_that_are_named_win_over_passages(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({**DPR, "gold_ids": ["mill-1"]}))
    assert read_examples(path)[0].gold_ids == ("mill-1",)


def test_a_passage_whose_id_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({**DPR, "positive_ctxs": [{"passage_id": ["31"]}]}))
    with pytest.raises(InputError, match=r"train\.jsonl:1: field 'passage_id' of a passage must be a text or a number"):
        read_examples(path)


def pair(folder: Path, questions: bytes, answers: bytes) -> Path:
    (folder / "train.source").write_bytes(questions)
    (folder / "train.target").write_bytes(answers)
    return folder / "train.source"


def test_line_n_of_the_source_is_answered_by_line_n_of_the_target(tmp_path: Path) -> None:
    source = pair(tmp_path, "\ufeffwho built it?\r\nwo steht die Mühle?\n".encode(), b"Ada Lund\nam Fluss")
    examples = read_examples(source)
    assert [(e.question, e.answers) for e in examples] == [
        ("who built it?", ("Ada Lund",)),
        ("wo steht die Mühle?", ("am Fluss",)),
    ]
    assert examples[1].place.endswith("train.source:2")
    assert read_examples(tmp_path / "train.target") == examples


@pytest.mark.parametrize(
    ("questions", "answers", "message"),
    [
        (b"a?\nb?\nc?\n", b"1\n2\n", r"train\.target: ends before line 3, which .*train\.source has"),
        (b"a?\n", b"1\n2\n", r"train\.source: ends before line 2"),
        (b"a?\nb\xff?\n", b"1\n2\n", r"train\.source:2: is not UTF-8 at byte 1"),
        (b"a?\n \n", b"1\n2\n", r"train\.source:2: field 'question' is blank"),
    ],
)
def test_what_is_wrong_with_the_pair_is_named(questions: bytes, answers: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_examples(pair(tmp_path, questions, answers))


def test_the_other_file_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "train.source").write_text("a?\n")
    with pytest.raises(InputError, match=r"train\.target: no such file"):
        read_examples(tmp_path / "train.source")
