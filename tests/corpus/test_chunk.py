"""How documents become passages: sizes, boundaries, overlap, ids."""

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from ragray.config import EmbedConfig, IngestConfig
from ragray.corpus.chunk import PARAGRAPH, _paragraph_break, split_document
from ragray.corpus.tokens import FileTokenizer, Tokenizer, WordTokenizer, load_tokenizer
from ragray.errors import ModelNotFoundError
from ragray.types import Document, Passage

WORDS = IngestConfig(max_tokens=20, overlap_tokens=5)


@pytest.fixture(scope="module")
def wordpiece() -> Tokenizer:
    return load_tokenizer(EmbedConfig())


def sentences(count: int, words: int = 4, seed: int = 0) -> list[str]:
    letters = random.Random(seed)
    word = lambda: "".join(letters.choices("abcdefghij", k=5))  # noqa: E731 - a name for it would be longer than it
    return [" ".join(word() for _ in range(words)).capitalize() + "." for _ in range(count)]


def split(
    text: str, config: IngestConfig = WORDS, title: str = "", tokenizer: Tokenizer | None = None
) -> list[Passage]:
    return list(split_document(Document("doc", text, title, {"k": "v"}), tokenizer or WordTokenizer(), config))


def shared(left: str, right: str) -> int:
    """Count the words at the end of one piece that the next begins with."""
    a, b = left.split(), right.split()
    return max(size for size in range(min(len(a), len(b)) + 1) if a[len(a) - size :] == b[:size])


def test_a_document_that_fits_keeps_its_id_title_and_metadata() -> None:
    assert split("One short text.", title="T") == [Passage("doc", "One short text.", "T", "doc", {"k": "v"})]


def test_pieces_are_literal_parts_that_leave_no_word_out() -> None:
    text = "\n\n".join(" ".join(sentences(7, seed=seed)) for seed in range(5))
    covered = 0
    for piece in split(text):
        start = text.index(piece.text)
        assert start <= covered + 1 or text[covered:start].isspace()
        covered = max(covered, start + len(piece.text))
    assert covered == len(text)


@pytest.mark.parametrize("title", ["", "Three words long"])
def test_no_piece_exceeds_max_tokens_with_its_title(title: str, wordpiece: Tokenizer) -> None:
    text = "\n\n".join(" ".join(sentences(9, seed=seed)) for seed in range(20))
    config = IngestConfig(max_tokens=64, overlap_tokens=16)
    pieces = split(text, config, title, wordpiece)
    sizes = [wordpiece.count(f"{title}\n{piece.text}") for piece in pieces]
    assert len(pieces) > 10
    assert max(sizes) <= 64
    assert sum(sizes) / len(sizes) > 40


def test_pieces_end_with_a_sentence_and_overlap_by_whole_sentences() -> None:
    pieces = split(" ".join(sentences(30)))
    assert all(piece.text.endswith(".") and piece.text[0].isupper() for piece in pieces)
    overlaps = [shared(left.text, right.text) for left, right in pairwise(pieces)]
    assert set(overlaps) == {4}


def test_pieces_prefer_to_end_with_a_paragraph() -> None:
    paragraphs = [" ".join(sentences(3, seed=seed)) for seed in range(6)]
    config = IngestConfig(max_tokens=20, overlap_tokens=0)
    assert [piece.text for piece in split("\n\n".join(paragraphs), config)] == paragraphs


def test_a_sentence_that_is_too_long_is_cut_between_words_and_overlaps_by_words() -> None:
    words = [f"w{number}" for number in range(100)]
    pieces = [piece.text.split() for piece in split(" ".join(words))]
    assert pieces[0] == words[:20]
    assert pieces[1] == words[15:35]


def test_without_overlap_pieces_share_nothing() -> None:
    text = " ".join(sentences(30))
    pieces = split(text, IngestConfig(max_tokens=20, overlap_tokens=0))
    assert " ".join(piece.text for piece in pieces) == text


def test_initials_and_abbreviations_end_no_sentence() -> None:
    text = "He met Dr. Smith and J. R. Jones in town today. " * 10
    pieces = split(text.strip(), IngestConfig(max_tokens=12, overlap_tokens=0))
    assert {piece.text for piece in pieces} == {"He met Dr. Smith and J. R. Jones in town today."}


def test_text_without_white_space_is_cut_by_its_own_stops(wordpiece: Tokenizer) -> None:
    pieces = split("这是一个测试的句子。" * 100, IngestConfig(max_tokens=32, overlap_tokens=0), tokenizer=wordpiece)
    assert all(piece.text.endswith("。") for piece in pieces)
    assert all(wordpiece.count(piece.text) <= 32 for piece in pieces)


def test_data_that_the_encoder_does_not_know_stays_short(wordpiece: Tokenizer) -> None:
    pieces = split("0" * 100_000, IngestConfig(max_tokens=32, overlap_tokens=0), tokenizer=wordpiece)
    assert max(len(piece.text) for piece in pieces) <= 32 * 16


def test_a_title_longer_than_half_a_passage_is_cut() -> None:
    pieces = split(" ".join(sentences(20)), title=" ".join(f"t{number}" for number in range(50)))
    assert {piece.title for piece in pieces} == {"t0 t1 t2 t3 t4 t5 t6 t7 t8 t9"}
    assert all(len(piece.text.split()) <= 10 for piece in pieces)


def test_an_edit_leaves_the_ids_of_pieces_away_from_it() -> None:
    paragraphs = [" ".join(sentences(3, seed=seed)) for seed in range(20)]
    before = [piece.id for piece in split("\n\n".join(paragraphs))]
    paragraphs[10] = "Something new. " + paragraphs[10]
    after = [piece.id for piece in split("\n\n".join(paragraphs))]
    assert before[:10] == after[:10]
    assert before[-9:] == after[-9:]
    assert before[10] not in after


def test_ids_are_the_document_and_eight_hex_digits_and_a_repeated_piece_gets_a_number() -> None:
    pieces = split("\n\n".join([" ".join(sentences(4))] * 3), IngestConfig(max_tokens=20, overlap_tokens=0))
    first = pieces[0].id
    assert first.startswith("doc#") and len(first) == len("doc#") + 8
    assert [piece.id for piece in pieces] == [first, f"{first}-2", f"{first}-3"]


def test_splitting_is_deterministic_whatever_the_tokenizer_saw_before(wordpiece: Tokenizer) -> None:
    text = " ".join(sentences(200))
    config = IngestConfig(max_tokens=40, overlap_tokens=10)
    assert split(text, config, tokenizer=wordpiece) == split(text, config, tokenizer=load_tokenizer(EmbedConfig()))


def test_words_count_as_they_do_in_their_text(wordpiece: Tokenizer) -> None:
    text = "Unbelievably, naïve co-operation: 3.14 % of U.S. “quotes” — 汉字 and \u200b zero-width tokenization!"
    for _ in range(2):
        assert sum(wordpiece.count_words(text.split())) == wordpiece.count(text)


def test_a_tokenizer_counts_past_the_truncation_stored_in_its_file(wordpiece: Tokenizer) -> None:
    assert wordpiece.count("word " * 1000) == 1000


def test_a_model_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"tokenizer\.json"):
        FileTokenizer(tmp_path)


def test_the_fake_encoder_counts_words() -> None:
    assert load_tokenizer(EmbedConfig(model="hash:16")).count("three short words") == 3


class CountingTokenizer(WordTokenizer):
    """Counts the characters that it is asked to read."""

    def __init__(self) -> None:
        self.num_chars = 0

    def count(self, text: str) -> int:
        self.num_chars += len(text)
        return super().count(text)

    def count_words(self, words: Sequence[str]) -> list[int]:
        self.num_chars += sum(map(len, words))
        return super().count_words(words)


@pytest.mark.parametrize("unit", ["Word after word. ", "word ", "a\n\n", "x", "。", ". "])
def test_the_tokenizer_reads_twice_as_much_of_twice_the_text(unit: str) -> None:
    def num_read(num_chars: int) -> int:
        tokenizer = CountingTokenizer()
        assert (
            len(split((unit * num_chars)[:num_chars].strip(), IngestConfig(), tokenizer=tokenizer))
            > num_chars // 10_000
        )
        return tokenizer.num_chars

    assert num_read(40_000) <= 2.1 * num_read(20_000)
    assert num_read(20_000) <= 8 * 20_000


def section(number: int, count: int) -> str:
    return f"## Section {number}\n\n{' '.join(sentences(count, seed=number))}"


def test_pieces_end_before_headings_and_a_section_begins_without_overlap() -> None:
    sections = [section(number, 3) for number in range(4)]
    pieces = [piece.text for piece in split("\n\n".join(sections), IngestConfig(max_tokens=20, overlap_tokens=5))]
    assert pieces == sections


def test_a_heading_is_never_cut_off_from_the_text_below_it() -> None:
    text = "\n\n".join(["# Book", "Intro here.", *(section(number, 2 + number % 4) for number in range(30))])
    for size in range(16, 40):
        pieces = split(text, IngestConfig(max_tokens=size, overlap_tokens=4))
        assert len(pieces) > 5
        assert not any(piece.text.rpartition("\n\n")[2].startswith("#") for piece in pieces), size


def test_small_sections_share_a_piece_and_a_large_one_keeps_its_overlap() -> None:
    small = "\n\n".join(section(number, 1) for number in range(4))
    assert [piece.text.count("##") for piece in split(small, IngestConfig(max_tokens=21, overlap_tokens=5))] == [3, 1]
    large = split(section(1, 20), IngestConfig(max_tokens=20, overlap_tokens=5))
    assert all(shared(left.text, right.text) == 4 for left, right in pairwise(large))


@pytest.mark.parametrize("line", ["#hashtag words", "####### seven", "# " + "long " * 50, "C# is a language"])
def test_what_only_looks_like_a_heading_is_a_paragraph(line: str) -> None:
    text = f"{line}\n\n{' '.join(sentences(5))}"
    config = IngestConfig(max_tokens=max(22, len(line.split()) + 1), overlap_tokens=0)
    assert split(text, config)[0].text.startswith(line.strip())
    assert _paragraph_break(text, len(line), len(line) + 2) == PARAGRAPH


def test_an_edit_in_one_section_leaves_the_ids_of_all_others() -> None:
    sections = [section(number, 9) for number in range(10)]
    before = split("\n\n".join(sections))
    sections[4] = sections[4].replace(".", ", and more.", 3)
    after = split("\n\n".join(sections))
    changed = {piece.id for piece in before} - {piece.id for piece in after}
    texts = [piece.text for piece in before if piece.id in changed]
    assert 0 < len(texts) <= 4
    assert all(text in section(4, 9) for text in texts)


def test_every_piece_carries_title_document_and_metadata() -> None:
    pieces = split(section(1, 20), title="The title")
    assert len(pieces) > 3
    assert {(piece.title, piece.document_id, tuple(piece.metadata.items())) for piece in pieces} == {
        ("The title", "doc", (("k", "v"),))
    }
