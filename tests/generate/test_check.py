"""What is said of examples before anything starts."""

import logging

import pytest

from ragray.errors import InputError
from ragray.generate.check import check_questions, warn_of_cut_answers
from ragray.generate.template import PromptLimit, PromptTemplate
from ragray.types import Example
from tests import tiny

PROMPTS = PromptTemplate(
    tiny.byte_tokenizer(), instruction="Short.", limit=PromptLimit(100, "generate.max_prompt_tokens"), chat=True
)


def test_the_first_question_that_is_too_long_is_named_and_all_are_counted() -> None:
    examples = [Example("a", "who?", ("x",)), Example("b", "w" * 99, ("x",)), Example("c", "w" * 99, ("x",))]
    with pytest.raises(InputError, match=r"^example 'b': .*too long.*generate\.max_prompt_tokens.*2 of 3"):
        check_questions(examples, PROMPTS)
    placed = [Example("b", "w" * 99, ("x",), place="train.jsonl:8")]
    with pytest.raises(InputError, match=r"^train.jsonl:8: .*too long"):
        check_questions(placed, PROMPTS)
    check_questions(examples[:1], PROMPTS)


def test_answers_that_training_would_cut_are_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    examples = [Example("a", "who?", ("x" * 7,)), Example("b", "who?", ("x" * 20, "y"))]
    with caplog.at_level(logging.WARNING, logger="ragray"):
        assert warn_of_cut_answers(examples, PROMPTS, 9) == 1
        assert warn_of_cut_answers(examples, PROMPTS, 22) == 0
    [record] = caplog.records
    assert "1 of 2 answers are longer than generate.max_new_tokens=9" in record.getMessage()
    assert "example 'b'" in record.getMessage()
