"""`ingest.min_chars` and `ingest.max_chars` limit the text of a document: which characters count."""

import json
from pathlib import Path

import pytest

from ragray.config import IngestConfig
from ragray.corpus.read.find import find_sources
from ragray.corpus.read.record import Refusal
from ragray.corpus.staging import staged_items
from ragray.corpus.tokens import WordTokenizer


def read(folder: Path, text: str, *, title: str = "", **settings: int) -> list[str]:
    """The texts of a document's passages, or why the document was refused."""
    path = folder / "a.jsonl"
    path.write_text(json.dumps({"id": "1", "title": title, "text": text}) + "\n", encoding="utf-8")
    [source] = find_sources([str(path)])
    [item] = staged_items(source, WordTokenizer(), IngestConfig.model_validate(settings))
    return [item.reason] if isinstance(item, Refusal) else [passage.text for passage in item.passages]


@pytest.mark.parametrize(("num_chars", "kept"), [(19, False), (20, True)])
def test_a_document_of_fewer_characters_than_min_chars_is_refused(tmp_path: Path, num_chars: int, kept: bool) -> None:
    text = "x" * num_chars
    assert read(tmp_path, text, min_chars=20) == ([text] if kept else ["shorter than min_chars=20"])


def test_min_chars_counts_the_text_after_cleaning(tmp_path: Path) -> None:
    assert read(tmp_path, "a" + " " * 30 + "b", min_chars=4) == ["shorter than min_chars=4"]
    assert read(tmp_path, "a" + " " * 30 + "b", min_chars=3) == ["a b"]


def test_min_chars_does_not_count_the_title(tmp_path: Path) -> None:
    assert read(tmp_path, "short", title="A title of many characters", min_chars=20) == ["shorter than min_chars=20"]


def test_min_chars_is_no_limit_of_passages(tmp_path: Path) -> None:
    """A long document may be split into passages that are shorter, and all of them are kept."""
    sentences = [f"Word {number}." for number in range(9)]
    passages = read(tmp_path, " ".join(sentences), min_chars=50, max_tokens=8, overlap_tokens=0)
    assert " ".join(passages) == " ".join(sentences)
    assert all(len(text) < 50 for text in passages)


def test_max_chars_counts_the_text_as_it_was_read(tmp_path: Path) -> None:
    text = "a" + " " * 30 + "b is clean"
    assert read(tmp_path, text, min_chars=1, max_chars=len(text)) == ["a b is clean"]
    assert read(tmp_path, text, min_chars=1, max_chars=len(text) - 1) == [f"longer than max_chars={len(text) - 1}"]


def test_max_chars_does_not_count_the_title(tmp_path: Path) -> None:
    assert read(tmp_path, "x" * 20, title="T" * 30, min_chars=1, max_chars=20) == ["x" * 20]
