"""The prompt of training, evaluation and serving."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ragray.generate.prompt import PromptEncoder, left_pad
from ragray.types import Passage


@pytest.fixture(scope="module")
def plain(tiny_decoder: Path) -> PromptEncoder:
    tokenizer = AutoTokenizer.from_pretrained(tiny_decoder)
    return PromptEncoder(tokenizer, instruction="Answer.", max_prompt_tokens=80, chat=False)


def text_of(encoder: PromptEncoder, ids: list[int]) -> str:
    text: str = encoder.tokenizer.decode(ids)
    return text


def test_a_prompt_holds_instruction_title_passage_and_question_in_this_order(plain: PromptEncoder) -> None:
    text = text_of(plain, plain.ids("who?", Passage("1", "a poet.", title="homer")))
    assert [text.index(part) for part in ("Answer.", "homer:", "a poet.", "who?")] == sorted(
        text.index(part) for part in ("Answer.", "homer:", "a poet.", "who?")
    )


def test_a_long_passage_loses_its_end_and_the_question_stays_whole(plain: PromptEncoder) -> None:
    ids = plain.ids("where is it?", Passage("1", "x" * 500))
    assert len(ids) <= 80
    assert "where is it?" in text_of(plain, ids)


def test_a_question_longer_than_the_budget_is_still_asked_whole(plain: PromptEncoder) -> None:
    question = "y" * 100 + "?"
    assert question in text_of(plain, plain.ids(question, Passage("1", "x" * 50)))


def test_an_answer_ends_with_the_end_token_even_when_it_is_cut(plain: PromptEncoder) -> None:
    ids = plain.answer_ids("z" * 50, 8)
    assert len(ids) == 8
    assert ids[-1] == plain.tokenizer.eos_token_id


def test_a_chat_template_is_used_where_there_is_one(tiny_decoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_decoder)
    tokenizer.chat_template = "{% for m in messages %}({{ m.role }}-{{ m.content }}){% endfor %}.."
    encoder = PromptEncoder(tokenizer, instruction="Short.", max_prompt_tokens=200, chat=True)
    assert text_of(encoder, encoder.ids("who?", None)).startswith("(system-Short.)(user-Question: who?)..")


def test_padding_is_on_the_left() -> None:
    assert left_pad([[5, 6], [7]], 0) == ([[5, 6], [0, 7]], [[1, 1], [0, 1]])
