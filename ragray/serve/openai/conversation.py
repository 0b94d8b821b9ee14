"""A conversation as one question. In: a request. Out: the last message with what was said before it, or an error. Pure.

Passages are looked up for the last message alone. System and developer messages replace the instruction of the prompt; the
earlier turns stand before the question in the prompt, the newest of them as far as there is room (`PromptTemplate.condensed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ragray.generate.engine import Sampling, Turn
from ragray.generate.orchestrator import QuestionRequest
from ragray.retrieve.retriever import SearchOptions
from ragray.serve.openai.fields import Asked
from ragray.serve.strict import invalid, require_short
from ragray.text.checks import is_blank


class Message(Protocol):
    """What somebody says: a system, a developer, a user or an assistant."""

    @property
    def role(self) -> str:
        """Who says it."""

    @property
    def content(self) -> str:
        """The text."""


def to_question(
    asked: Asked,
    messages: Sequence[Message],
    sampling: Sampling,
    max_chars: int,
    *,
    field: str = "messages",
    instructions: str = "",
) -> QuestionRequest:
    """Return the question of a conversation; of each text at most ``max_chars`` characters are allowed, earlier turns aside.

    ``field`` is the name of the messages in the request; ``instructions`` stand before those of system and developer.

    Raises:
        RequestValidationError: the last message is not a user's, is blank or too long, or the fields contradict each other.
    """
    *earlier, last = messages
    where = f"{field}.{len(earlier)}"
    if last.role != "user":
        raise invalid(
            (where, "role"), f"is {last.role!r}, expected that the last message is the user's", "invalid_value"
        )
    if is_blank(last.content):
        raise invalid((where, "content"), "must not be empty", "invalid_value")
    if not asked.temperature and asked.top_p not in (None, 1):
        raise invalid(
            ("top_p",), "is only for a temperature above 0: answers are decoded greedily", "unsupported_parameter"
        )
    question, instruction = last.content.strip(), _instruction(instructions, earlier)
    require_short(f"{where}.content", question, max_chars)
    require_short(field, instruction, max_chars)
    retrieval = asked.retrieval
    if retrieval.closed_book and len(retrieval.model_fields_set) > 1:
        raise invalid(("retrieval", "closed_book"), "looks nothing up: leave the other fields out", "invalid_value")
    return QuestionRequest(
        question,
        k=retrieval.k,
        closed_book=retrieval.closed_book,
        search=SearchOptions(retrieval.mode, retrieval.filter.strip()),
        snapshot=retrieval.snapshot,
        history=_turns(earlier),
        instruction=instruction,
        sampling=sampling,
    )


def _instruction(first: str, messages: Sequence[Message]) -> str:
    said = [message.content for message in messages if message.role in ("system", "developer")]
    return "\n\n".join(text.strip() for text in (first, *said) if not is_blank(text))


def _turns(messages: Sequence[Message]) -> tuple[Turn, ...]:
    """Return what user and assistant said; blank messages say nothing."""
    return tuple(
        Turn("user" if message.role == "user" else "assistant", message.content.strip())
        for message in messages
        if message.role in ("user", "assistant") and not is_blank(message.content)
    )
