"""Chat requests as data. In: the JSON of `POST /v1/chat/completions`. Out: a checked request; what cannot be done is refused by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, StringConstraints, ValidationInfo, field_validator

from ragray.config.base import MAX_SEED
from ragray.generate.engine import Sampling
from ragray.serve.openai.fields import Asked, Neutral, require_neutral, require_no_truth_value, text_of_parts
from ragray.serve.schema import EXAMPLE_QUESTION, Wire

MAX_STOP = 4
MAX_MESSAGES = 1000

NEUTRAL: Neutral = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "metadata": ({},),
    "service_tier": ("auto", "default"),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
WHY = {
    "n": "one answer is written for a request: leave it out, or send 1",
}
"""Why a field of `NEUTRAL` is refused, where more can be said than that it is not supported."""


def _text(content: object) -> object:
    return text_of_parts(content, ("text",))


def _listed(stop: object) -> object:
    return [stop] if isinstance(stop, str) else [] if stop is None else stop


class ChatMessage(Wire):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="who says it", examples=["user"])
    content: Annotated[str, BeforeValidator(_text)] = Field(
        "", description="a text, or a list of parts of type `text`", examples=[EXAMPLE_QUESTION]
    )
    annotations: JsonValue = Field(None, description="citations of an earlier answer, as they came; they are not read")
    name: None = Field(None, description="not supported")
    refusal: None = Field(None, description="not supported")
    audio: None = Field(None, description="not supported")
    function_call: None = Field(None, description="not supported")
    tool_calls: None = Field(None, description="not supported")


class StreamOptions(Wire):
    """What a stream holds beside the answer."""

    include_usage: bool = Field(False, description="send the numbers of tokens in a last chunk")
    include_obfuscation: Literal[False] | None = Field(None, description="not supported")


class ChatRequest(Asked):
    """A conversation whose last message is to be answered."""

    messages: tuple[ChatMessage, ...] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="the conversation, oldest first; the last message is the user's question, for which passages are looked up",
    )
    stream_options: StreamOptions | None = Field(None, description="only with `stream`")
    max_tokens: int | None = Field(None, ge=1, strict=True, description="tokens of the answer at most", examples=[32])
    max_completion_tokens: int | None = Field(None, ge=1, strict=True, description="the newer name of max_tokens")
    stop: Annotated[tuple[Annotated[str, StringConstraints(min_length=1)], ...], BeforeValidator(_listed)] = Field(
        (), max_length=MAX_STOP, description="texts before which the answer ends", examples=["\n"]
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="the same seed gives the same draws; greedy answers are the same with every seed",
    )
    n: JsonValue = Field(None, description="only 1", examples=[1])
    logprobs: JsonValue = Field(None, description="not supported")
    top_logprobs: JsonValue = Field(None, description="not supported")
    presence_penalty: JsonValue = Field(None, description="not supported")
    frequency_penalty: JsonValue = Field(None, description="not supported")
    logit_bias: JsonValue = Field(None, description="not supported")
    tools: JsonValue = Field(None, description="not supported")
    tool_choice: JsonValue = Field(None, description="not supported")
    parallel_tool_calls: JsonValue = Field(None, description="not supported")
    functions: JsonValue = Field(None, description="not supported")
    function_call: JsonValue = Field(None, description="not supported")
    response_format: JsonValue = Field(None, description="only text")
    modalities: JsonValue = Field(None, description="only text")
    store: JsonValue = Field(None, description="not supported")
    metadata: JsonValue = Field(None, description="not supported")
    service_tier: JsonValue = Field(None, description="not supported")
    audio: JsonValue = Field(None, description="not supported")
    prediction: JsonValue = Field(None, description="not supported")
    reasoning_effort: JsonValue = Field(None, description="not supported")
    verbosity: JsonValue = Field(None, description="not supported")
    web_search_options: JsonValue = Field(None, description="not supported")

    @field_validator(*NEUTRAL)
    @classmethod
    def _asks_for_nothing(cls, value: JsonValue, info: ValidationInfo) -> JsonValue:
        """Refuse a value that the answer would not follow."""
        return require_neutral(str(info.field_name), value, NEUTRAL, WHY)

    @field_validator("seed", mode="before")
    @classmethod
    def _is_a_number(cls, value: object) -> object:
        return require_no_truth_value(value)

    @property
    def sampling(self) -> Sampling:
        """How the answer is to be written."""
        return self.sampled(self.max_new_tokens, self.stop, self.seed)

    @property
    def max_new_tokens(self) -> int | None:
        """Tokens of the answer at most, by whichever name; None is the engine's own limit."""
        given = [number for number in (self.max_tokens, self.max_completion_tokens) if number is not None]
        return min(given, default=None)
