"""All passages in one prompt: which of them stand in it, what it says, and whom the answer cites."""

import math

import pytest

from ragray.config import GenerateConfig
from ragray.errors import InputError
from ragray.generate.engine import GenerationRequest
from ragray.generate.strategy import Marginal, Together, WeightedPrompts, make_strategy
from ragray.generate.template import CITE, PASSAGE_ROOM, PromptLimit, PromptTemplate
from ragray.types import Hit, Passage
from tests import tiny
from tests.generate.test_template import CHATML


def template(num_tokens: int = 600) -> PromptTemplate:
    limit = PromptLimit(num_tokens, "generate.max_prompt_tokens")
    tokenizer = tiny.byte_tokenizer(chat_template=CHATML)
    return PromptTemplate(tokenizer, instruction="Short.", limit=limit, chat=True, cite=CITE)


def hits(*texts: str) -> tuple[Hit, ...]:
    return tuple(Hit(Passage(text, text, f"T{n}"), 1.0, dense=1.0 - n / 10) for n, text in enumerate(texts))


def prompt(num_tokens: int, *texts: str, question: str = "who?") -> tuple[str, int]:
    """Return the text of the prompt and the number of passages in it."""
    made = template(num_tokens)
    weighted = Together(made, temperature=0.1).prompts(GenerationRequest(question, hits(*texts)))
    [row] = weighted.prompts
    assert len(row) <= num_tokens
    return made.tokenizer.decode(row), len(weighted.log_prior_N)


def test_the_passages_are_numbered_from_the_best_and_the_instruction_says_how_to_cite() -> None:
    text, number = prompt(600, "A poet.", "A river [7].")
    assert number == 2
    assert f"<|im_start|>system\nShort. {CITE}<|im_end|>" in text
    assert "user\n[1] T0: A poet.\n\n[2] T1: A river.\n\nQuestion: who?<|im_end|>" in text


def test_without_passages_there_is_nothing_to_cite() -> None:
    text, number = prompt(600)
    assert (number, CITE in text, "Short." in text) == (0, False, True)


def test_the_last_passage_with_room_is_shortened_and_those_behind_it_are_left_out() -> None:
    fixed = len(template().numbered_ids("who?", [Passage("1", "", "T")])[0])
    text, number = prompt(fixed + 150, "a" * 80, "b" * 400, "c" * 5)
    assert number == 2
    assert "a" * 80 in text and "b" * 20 in text and "c" * 5 not in text


def test_a_passage_of_which_hardly_anything_would_stay_is_left_out() -> None:
    whole, _ = prompt(2000, "a" * 80)
    size = len(whole.encode()) - sum(len(mark) - 1 for mark in ("<|im_start|>",) * 3 + ("<|im_end|>",) * 2) + 60
    numbers = [prompt(limit, "a" * 80, "b" * 400)[1] for limit in range(size - 60, size + 60, 5)]
    assert set(numbers) == {1, 2} and numbers == sorted(numbers)
    for limit in range(size - 60, size + 60, 5):
        text, number = prompt(limit, "a" * 80, "b" * 400)
        assert ("[2]" in text) == (number == 2)
        assert number == 1 or text.count("b") >= PASSAGE_ROOM


def test_the_best_passage_is_always_read_and_a_question_that_leaves_it_no_room_is_refused() -> None:
    made = template(300)
    fixed = len(made._encode("Question: ", "", made.citing("")))
    longest = "y" * (300 - PASSAGE_ROOM - fixed)
    made.check(longest)
    text, number = prompt(300, "x" * 500, "z", question=longest)
    assert (number, longest in text, "x" in text) == (1, True, True)
    with pytest.raises(InputError, match="too long"):
        made.check(longest + "?")


def test_a_passage_counts_where_it_is_cited_and_by_its_prior_where_none_is() -> None:
    strategy = Together(template(), temperature=0.1)
    weighted = strategy.prompts(GenerationRequest("who?", hits("a", "b", "c")))
    assert strategy.shares(weighted, "x [3] y [1, 3]", [1.0]) == (0.5, 0.0, 0.5)
    assert strategy.shares(weighted, "x [2]", [1.0]) == (0.0, 1.0, 0.0)
    prior = strategy.shares(weighted, "x", [1.0])
    assert sum(prior) == pytest.approx(1)
    assert math.log(prior[0] / prior[1]) == pytest.approx(1)  # inner products 0.1 apart, temperature 0.1


def test_alone_a_passage_counts_by_its_posterior() -> None:
    strategy = Marginal(template(), temperature=0.1)
    assert strategy.shares(WeightedPrompts([[1], [2]], [0, 0], [0, 0]), "x [1]", [0.3, 0.7]) == (0.3, 0.7)
    assert strategy.shares(strategy.prompts(GenerationRequest("who?")), "x", [1.0]) == ()


def test_the_setting_names_the_strategy() -> None:
    assert isinstance(make_strategy(template(), GenerateConfig()), Marginal)
    assert isinstance(make_strategy(template(), GenerateConfig(strategy="together")), Together)
