"""Requests as data. In: the JSON of `POST /v1/responses`. Out: a checked request; what cannot be done is refused by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, ValidationInfo, field_validator

from ragray.serve.openai.chat_request import MAX_MESSAGES
from ragray.serve.openai.fields import Asked, Neutral, require_neutral, text_of_parts
from ragray.serve.schema import EXAMPLE_QUESTION, Wire

NEUTRAL: Neutral = {
    "previous_response_id": (),
    "conversation": (),
    "store": (False,),
    "background": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "max_tool_calls": (),
    "text": ({}, {"format": {"type": "text"}}),
    "reasoning": ({},),
    "include": ([],),
    "prompt": (),
    "metadata": ({},),
    "truncation": ("auto",),
    "top_logprobs": (0,),
    "service_tier": ("auto", "default"),
    "stream_options": ({}, {"include_obfuscation": False}),
    "prompt_cache_retention": (),
    "context_management": (),
}
NO_STATE = "nothing is kept between requests: leave it out, and send the earlier messages in `input`"
WHY = {
    "previous_response_id": NO_STATE,
    "conversation": NO_STATE,
    "store": "nothing is kept between requests: leave it out, or send false",
    "truncation": "earlier messages that do not fit are left out: leave it out, or send auto",
}
"""Why a field of `NEUTRAL` is refused, where more can be said than that it is not supported."""


def _text(content: object) -> object:
    return text_of_parts(content, ("input_text", "output_text"))


def _messages(given: object) -> object:
    """Take a text as the one message of a user."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


class InputMessage(Wire):
    """A message of a conversation; an item of an earlier response's `output` is one too."""

    type: Literal["message"] = Field("message", description="other items are not supported")
    role: Literal["system", "developer", "user", "assistant"] = Field(description="who says it", examples=["user"])
    content: Annotated[str, BeforeValidator(_text)] = Field(
        description="a text, or a list of parts of type `input_text` or `output_text`", examples=[EXAMPLE_QUESTION]
    )
    id: JsonValue = Field(None, description="that of an earlier response; it is not read")
    status: JsonValue = Field(None, description="that of an earlier response; it is not read")
    phase: JsonValue = Field(None, description="that of an earlier response; it is not read")


class ResponseRequest(Asked):
    """A text or a conversation whose last message is to be answered."""

    input: Annotated[tuple[InputMessage, ...], BeforeValidator(_messages)] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="a text, or messages, oldest first; the last is the user's question, for which passages are looked up",
        examples=[EXAMPLE_QUESTION],
    )
    instructions: str | None = Field(None, description="replace the instruction of the prompt", examples=["Be brief."])
    max_output_tokens: int | None = Field(None, ge=1, strict=True, description="tokens of the answer at most")
    previous_response_id: JsonValue = Field(None, description="not supported: nothing is kept between requests")
    conversation: JsonValue = Field(None, description="not supported: nothing is kept between requests")
    store: JsonValue = Field(None, description="only false: nothing is kept between requests")
    background: JsonValue = Field(None, description="not supported")
    tools: JsonValue = Field(None, description="not supported")
    tool_choice: JsonValue = Field(None, description="not supported")
    parallel_tool_calls: JsonValue = Field(None, description="not supported")
    max_tool_calls: JsonValue = Field(None, description="not supported")
    text: JsonValue = Field(None, description="only the format text")
    reasoning: JsonValue = Field(None, description="not supported")
    include: JsonValue = Field(None, description="not supported")
    prompt: JsonValue = Field(None, description="not supported")
    metadata: JsonValue = Field(None, description="not supported")
    truncation: JsonValue = Field(None, description="only auto: earlier messages that do not fit are left out")
    top_logprobs: JsonValue = Field(None, description="not supported")
    service_tier: JsonValue = Field(None, description="not supported")
    stream_options: JsonValue = Field(None, description="not supported")
    prompt_cache_retention: JsonValue = Field(None, description="not supported")
    context_management: JsonValue = Field(None, description="not supported")

    @field_validator(*NEUTRAL)
    @classmethod
    def _asks_for_nothing(cls, value: JsonValue, info: ValidationInfo) -> JsonValue:
        """Refuse a value that the answer would not follow."""
        return require_neutral(str(info.field_name), value, NEUTRAL, WHY)
