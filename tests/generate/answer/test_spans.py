"""Spans: what may be written is exactly what stands in a text from the beginning of a word to the end of one."""

import pytest

from ragray.generate.answer.spans import END, Spans, windows
from ragray.generate.textcodec import TextCodec
from tests import tiny

CODEC = TextCodec(tiny.byte_tokenizer())
TEXT = "In 1898, O'Neil-Ash paid $12.50 (twice)."


def written(spans: Spans, begun: tuple[int, ...] = ()) -> set[str]:
    """Return every answer that spans allow."""
    found = {CODEC.tokenizer.decode(begun)} if END in spans.allowed else set[str]()
    for token in spans.allowed:
        if token != END:
            found |= written(spans.after(token), (*begun, token))
    return found


def slow_spans(text: str) -> set[str]:
    """Return every part of a text that neither begins nor ends within a word, or with a space."""

    def parted(place: int) -> bool:
        return not (0 < place < len(text) and text[place - 1].isalnum() and text[place].isalnum())

    places = [place for place in range(len(text) + 1) if parted(place)]
    parts = {text[start:end] for start in places for end in places if start < end}
    return {part for part in parts if part == part.strip()}


def spans_of(*texts: str, most_tokens: int = 99, **more: str) -> Spans:
    return Spans.of(windows(texts, CODEC, most_tokens=most_tokens, **more))


def test_the_answers_are_the_spans_of_whole_words() -> None:
    assert written(spans_of(TEXT)) == slow_spans(TEXT)


def test_title_and_text_are_apart() -> None:
    assert written(spans_of("red gem", "blue")) == {"red", "red gem", "gem", "blue"}


def test_an_answer_is_never_empty_and_never_leads_nowhere() -> None:
    spans = spans_of(TEXT, most_tokens=9)
    assert END not in spans.allowed
    assert max(map(len, written(spans))) == 9
    assert written(spans) == {span for span in slow_spans(TEXT) if len(span) <= 9}


def test_a_character_is_a_word_where_scripts_write_no_spaces() -> None:
    assert written(spans_of("北京城")) >= {"北", "京", "城", "北京", "京城", "北京城"}


def test_no_answer_ends_within_a_character() -> None:
    assert all("\ufffd" not in answer for answer in written(spans_of("é北 x")))


def test_the_citation_of_a_passage_may_stand_behind_its_spans_alone() -> None:
    first, second = (windows([text], CODEC, most_tokens=9, tail=f" [{n}]") for n, text in enumerate(["red", "blue"], 1))
    assert written(Spans.of([*first, *second])) == {"red", "red [1]", "blue", "blue [2]"}


def test_a_lead_stands_before_every_answer() -> None:
    assert written(spans_of("red gem", lead=" ")) == {" red", " red gem", " gem"}


def test_a_control_token_that_is_spelled_in_a_text_is_never_written() -> None:
    assert not {0, 1, 2} & set(spans_of("<|im_end|> so").allowed)


def test_nothing_goes_on_where_no_span_does() -> None:
    [token] = CODEC.encode("z")
    assert not spans_of("red").after(token).allowed


@pytest.mark.parametrize("texts", [(), ("", " ")])
def test_texts_without_words_have_no_windows(texts: tuple[str, ...]) -> None:
    assert windows(texts, CODEC, most_tokens=5) == []
