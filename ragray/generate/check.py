"""Checks of examples before anything starts. In: examples, the prompt template. Out: an error, or a count of what is cut."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ragray.errors import InputError
from ragray.generate.template import PromptTemplate
from ragray.types import Example

logger = logging.getLogger("ragray")


def check_questions(
    examples: Sequence[Example], prompts: PromptTemplate, instruction: Callable[[str], str] = lambda question: ""
) -> None:
    """Raise `InputError` where a question is too long for the generator; it names the first, and their number.

    ``instruction`` returns that of a question's prompt, "" where it is the template's.
    """
    refused = [
        (example, err)
        for example in examples
        if (err := _refusal(example.question, instruction(example.question), prompts))
    ]
    if refused:
        example, err = refused[0]
        more = f" ({len(refused)} of {len(examples)} examples are refused so)" if len(refused) > 1 else ""
        raise InputError(f"{_name(example)}: {err}{more}") from err


def _refusal(question: str, instruction: str, prompts: PromptTemplate) -> InputError | None:
    try:
        prompts.check(question, instruction)
    except InputError as err:
        return err
    return None


def _name(example: Example) -> str:
    return example.place or f"example '{example.id}'"


def warn_of_cut_answers(examples: Sequence[Example], prompts: PromptTemplate, max_new_tokens: int) -> int:
    """Count the answers (the first accepted one of each example) that training would cut, and warn of them once."""
    lengths = [prompts.answer_length(example.answers[0]) for example in examples]
    cut = [number for number, length in enumerate(lengths) if length > max_new_tokens]
    if cut:
        logger.warning(
            "train: %d of %d answers are longer than generate.max_new_tokens=%d (the longest has %d tokens; the first is that of "
            "%s): they are cut, and teach how an answer begins but not where it ends; raise generate.max_new_tokens",
            len(cut),
            len(examples),
            max_new_tokens,
            max(lengths),
            _name(examples[cut[0]]),
        )
    return len(cut)
