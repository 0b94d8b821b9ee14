"""Where sentences end in texts of many scripts, and that passages are cut there and lose nothing."""

import pytest

from ragray.config import EmbedConfig, IngestConfig
from ragray.corpus.chunk import split_document
from ragray.corpus.tokens import Tokenizer, load_tokenizer
from ragray.text.scripts import length_in_letters
from ragray.text.sentences import safe_cut, sentences
from ragray.types import Document


@pytest.fixture(scope="module")
def wordpiece() -> Tokenizer:
    return load_tokenizer(EmbedConfig())


def pieces(text: str, tokenizer: Tokenizer, max_tokens: int = 48, overlap_tokens: int = 0) -> list[str]:
    config = IngestConfig(max_tokens=max_tokens, overlap_tokens=overlap_tokens)
    return [piece.text for piece in split_document(Document("d", text), tokenizer, config)]


SENTENCES = {
    "zh": "北岸的船工每天早上检查缆绳，发现磨损就立刻更换。",
    "zh question": "这条缆绳还能用吗？",
    "zh ascii marks": "这条缆绳还能用吗?不能!",
    "zh quoted": "船长说：“今天不出海，明天再看风向。”",
    "zh brackets": "（详见第二章的说明。）",
    "ja": "船長は毎朝、綱を点検します。",
    "ja quoted": "船長は「今日は海に出ない。」",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_without_spaces_no_sentence_that_fits_is_cut_and_nothing_is_lost(name: str, wordpiece: Tokenizer) -> None:
    sentence = SENTENCES[name]
    text = sentence * 30
    for overlap in (0, 16):
        found = pieces(text, wordpiece, overlap_tokens=overlap)
        assert len(found) > 3
        assert all(piece[0] == sentence[0] and piece[-1] == sentence[-1] for piece in found if "?" not in piece)
        assert all(piece[-1] in "。？?!！”）」" and piece[0] not in "”）」" for piece in found)
        assert all(wordpiece.count(piece) <= 48 for piece in found)
    assert "".join(pieces(text, wordpiece)) == text


SPACED = {
    "ko": "선장은 매일 아침 밧줄을 살핍니다.",
    "hi": "कप्तान हर सुबह रस्सियों की जाँच करता है।",
    "ar": "هل يفحص القبطان الحبال كل صباح؟",
    "ur": "کپتان ہر صبح رسیوں کو دیکھتا ہے۔",
    "de": "Der Kapitän prüft am 3. Mai mit Dr. Groß jedes Seil.",
    "vi": "Thuyền trưởng kiểm tra dây thừng mỗi buổi sáng.",
    "fr": "Le capitaine a dit : « Nous restons au port. »",
    "en": "“Is the rope sound?” asked the captain.",
}


@pytest.mark.parametrize("language", SPACED)
def test_with_spaces_no_sentence_that_fits_is_cut(language: str, wordpiece: Tokenizer) -> None:
    sentence = SPACED[language]
    size = max(24, wordpiece.count(sentence) * 5 // 2)
    found = pieces(" ".join([sentence] * 20), wordpiece, max_tokens=size)
    assert set(found) <= {sentence, f"{sentence} {sentence}"}


def test_thai_is_cut_at_its_spaces_and_never_before_a_mark(wordpiece: Tokenizer) -> None:
    phrase = "กัปตันตรวจเชือกทุกเช้า"
    found = pieces(" ".join([phrase] * 30), wordpiece)
    assert all(piece.startswith(phrase) and piece.endswith(phrase) for piece in found)
    text = "กั้" * 40
    assert all(text[safe_cut(text, 0, stop)] == "ก" for stop in range(4, 100))


def test_a_sentence_that_is_too_long_ends_at_a_clause(wordpiece: Tokenizer) -> None:
    clause = "装卸工人在码头上清点货物，核对单据；"
    found = pieces("".join([clause] * 12) + "然后下班。", wordpiece)
    assert all(piece.endswith("；") for piece in found[:-1]) and len(found) > 3


@pytest.mark.parametrize(
    "inside", ["北岸有3.5万人，也用v2.0版本。", "见http://a.cn/x?q=1一页。", "他说“好！”，然后走了。"]
)
def test_a_mark_within_a_sentence_does_not_end_it(inside: str, wordpiece: Tokenizer) -> None:
    assert all(piece.endswith("。") for piece in pieces(inside * 20, wordpiece, max_tokens=40))


def test_a_numbered_heading_stays_with_its_text(wordpiece: Tokenizer) -> None:
    body = "船工每天早上检查缆绳，发现磨损就立刻更换。"
    text = "\n\n".join(f"第{number}章 检查\n\n{body}" for number in "一二三四五六")
    found = pieces(text, wordpiece, max_tokens=40)
    assert found == [f"第{number}章 检查\n\n{body}" for number in "一二三四五六"]


def test_code_and_tables_are_kept_whole_where_they_fit(wordpiece: Tokenizer) -> None:
    code = "```sh\n# load it\n\nload one. Two\n\n    # start\nstart\n```"
    table = "\n".join(f"| item {n}. New | {n} |" for n in range(4))
    prose = "The first sentence says something about ropes. The second sentence says more."
    found = pieces(f"{prose}\n\n{code}\n\n{prose}\n\n{table}\n\n{prose}", wordpiece, max_tokens=50)
    assert any(code in piece for piece in found) and any(table in piece for piece in found)


def test_code_that_does_not_fit_is_cut_between_lines(wordpiece: Tokenizer) -> None:
    lines = [f"    step_{n} = load(source_{n})" for n in range(40)]
    found = pieces("```\n" + "\n".join(lines) + "\n```", wordpiece)
    assert {line for piece in found for line in piece.split("\n")} == {"```", *lines}


def test_a_character_of_a_dense_script_counts_as_three() -> None:
    assert length_in_letters("七天内可退") == 15
    assert length_in_letters("반품 가능") == 13
    assert length_in_letters("ขอบคุณ abc") == 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is old. Dr. Smith came!  Why?", ["It is old.", "Dr. Smith came!", "Why?"]),
        ("no end", ["no end"]),
        ("它很古老。在巴黎！", ["它很古老。", "在巴黎！"]),
        ("Pi is 3.14 or so. Yes.", ["Pi is 3.14 or so.", "Yes."]),
        ("", []),
    ],
)
def test_a_text_is_cut_into_its_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected
