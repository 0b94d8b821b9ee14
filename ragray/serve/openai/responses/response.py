"""Responses as data. In: a request, a served answer. Out: OpenAI's object of a response, at any moment of it, with citations."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from ragray.generate.engine import Usage
from ragray.generate.orchestrator import ServedAnswer
from ragray.serve.openai.chat_response import Annotation, ChatCitation, UrlCitation, annotations_of, citations
from ragray.serve.openai.markers import without_markers
from ragray.serve.openai.responses.request import ResponseRequest
from ragray.serve.schema import Wire


class TextAnnotation(UrlCitation):
    """A source of a part of the answer."""

    type: Literal["url_citation"]


class OutputText(Wire):
    """The text of an answer."""

    type: Literal["output_text"]
    text: str
    annotations: tuple[TextAnnotation, ...]
    logprobs: tuple[()]


class OutputMessage(Wire):
    """The message of an answer."""

    type: Literal["message"]
    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"]
    content: tuple[OutputText, ...]


class InputDetails(Wire):
    """What is known of the tokens that were read."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(Wire):
    """What is known of the tokens that were written."""

    reasoning_tokens: int


class ResponseUsage(Wire):
    """Tokens; the input's are those of all prompts of the question."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> ResponseUsage:
        """Write a usage as JSON has it; which tokens came from a cache is not known."""
        return cls(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputDetails(cached_tokens=0, cache_write_tokens=0),
            output_tokens=usage.new_tokens,
            output_tokens_details=OutputDetails(reasoning_tokens=0),
            total_tokens=usage.total,
        )


class Incomplete(Wire):
    """Why an answer was cut."""

    reason: Literal["max_output_tokens"]


class TextFormat(Wire):
    """The one format of answers."""

    type: Literal["text"]


class TextSettings(Wire):
    """How an answer is formatted."""

    format: TextFormat


class ResponseObject(Wire):
    """A response, with the settings that it was written by."""

    id: str = Field(examples=["resp_5b1c"])
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    background: Literal[False]
    error: None
    incomplete_details: Incomplete | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: tuple[OutputMessage, ...]
    parallel_tool_calls: Literal[False]
    previous_response_id: None
    store: Literal[False]
    temperature: float
    text: TextSettings
    tool_choice: Literal["none"]
    tools: tuple[()]
    top_p: float
    truncation: Literal["auto"]
    usage: ResponseUsage | None
    user: str | None
    citations: tuple[ChatCitation, ...] = Field(description="the passages read, by their numbers; a field of ragray")


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What every state of a response repeats: the request, ids of response and message, and when it began (seconds since 1970)."""

    asked: ResponseRequest
    id: str = field(default_factory=lambda: f"resp_{uuid.uuid4().hex}")
    message_id: str = field(default_factory=lambda: f"msg_{uuid.uuid4().hex}")
    created_at: int = field(default_factory=lambda: int(time.time()))

    def begun(self) -> ResponseObject:
        """Return the response before anything is written."""
        asked = self.asked
        return ResponseObject(
            id=self.id,
            object="response",
            created_at=self.created_at,
            status="in_progress",
            background=False,
            error=None,
            incomplete_details=None,
            instructions=asked.instructions,
            max_output_tokens=asked.max_output_tokens,
            metadata={},
            model=asked.model,
            output=(),
            parallel_tool_calls=False,
            previous_response_id=None,
            store=False,
            temperature=asked.temperature or 0,
            text=TextSettings(format=TextFormat(type="text")),
            tool_choice="none",
            tools=(),
            top_p=1 if asked.top_p is None else asked.top_p,
            truncation="auto",
            usage=None,
            user=asked.user,
            citations=(),
        )

    def message(self, text: OutputText | None, served: ServedAnswer | None = None) -> OutputMessage:
        """Return the message: begun without a text, whole with the answer that it is of."""
        status = _status(served) if served else "in_progress"
        content = () if text is None else (text,)
        return OutputMessage(type="message", id=self.message_id, status=status, role="assistant", content=content)

    def ended(self, text: OutputText, served: ServedAnswer) -> ResponseObject:
        """Return the whole response."""
        cut = Incomplete(reason="max_output_tokens") if served.answer.finish_reason == "length" else None
        changes = {
            "status": _status(served),
            "incomplete_details": cut,
            "output": (self.message(text, served),),
            "usage": ResponseUsage.of(served.usage),
            "citations": citations(served),
        }
        return self.begun().model_copy(update=changes)


def response_of(head: ResponseHead, served: ServedAnswer) -> ResponseObject:
    """Write a whole answer as JSON has it."""
    answer = served.answer
    text = answer.text if answer.numbered else without_markers(answer.text)
    return head.ended(output_text(text, served), served)


def output_text(text: str, served: ServedAnswer | None = None) -> OutputText:
    """Return the text of a message, with annotations of the sources of a whole answer."""
    noted = () if served is None else tuple(map(_flat, annotations_of(text, served)))
    return OutputText(type="output_text", text=text, annotations=noted, logprobs=())


def _flat(annotation: Annotation) -> TextAnnotation:
    return TextAnnotation(type="url_citation", **annotation.url_citation.model_dump())


def _status(served: ServedAnswer) -> Literal["completed", "incomplete"]:
    return "incomplete" if served.answer.finish_reason == "length" else "completed"
