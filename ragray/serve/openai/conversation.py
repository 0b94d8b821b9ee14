"""A conversation as one question. In: a chat request. Out: the last message with what was said before it, or an error. Pure.

Passages are looked up for the last message alone. System and developer messages replace the instruction of the prompt; the
earlier turns stand before the question in the prompt, the newest of them as far as there is room (`PromptTemplate.condensed`).
"""

from __future__ import annotations

from collections.abc import Sequence

from ragray.generate.engine import Turn
from ragray.generate.orchestrator import QuestionRequest
from ragray.retrieve.retriever import SearchOptions
from ragray.serve.openai.chat_request import ChatMessage, ChatRequest
from ragray.serve.strict import invalid, require_short
from ragray.text.checks import is_blank


def to_question(body: ChatRequest, max_chars: int) -> QuestionRequest:
    """Return the question of a conversation; of each text at most ``max_chars`` characters are allowed, earlier turns aside.

    Raises:
        RequestValidationError: the last message is not a user's, is blank or too long, or the fields contradict each other.
    """
    *earlier, last = body.messages
    where = f"messages.{len(earlier)}"
    if last.role != "user":
        raise invalid(
            (where, "role"), f"is {last.role!r}, expected that the last message is the user's", "invalid_value"
        )
    if is_blank(last.content):
        raise invalid((where, "content"), "must not be empty", "invalid_value")
    if body.stream_options is not None and not body.stream:
        raise invalid(("stream_options",), "is only for stream=true", "invalid_value")
    if not body.temperature and body.top_p not in (None, 1):
        raise invalid(
            ("top_p",), "is only for a temperature above 0: answers are decoded greedily", "unsupported_parameter"
        )
    question, instruction = last.content.strip(), _instruction(earlier)
    require_short(f"{where}.content", question, max_chars)
    require_short("messages", instruction, max_chars)
    retrieval = body.retrieval
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
        sampling=body.sampling,
    )


def _instruction(messages: Sequence[ChatMessage]) -> str:
    texts = [message.content.strip() for message in messages if message.role in ("system", "developer")]
    return "\n\n".join(text for text in texts if not is_blank(text))


def _turns(messages: Sequence[ChatMessage]) -> tuple[Turn, ...]:
    """Return what user and assistant said; blank messages say nothing."""
    return tuple(
        Turn(message.role, message.content.strip())
        for message in messages
        if (message.role == "user" or message.role == "assistant") and not is_blank(message.content)
    )
