"""Chat requests as data. In: the JSON of `POST /v1/chat/completions`. Out: a checked request; what cannot be done is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ragray.config.base import MAX_SEED
from ragray.generate.engine import Sampling
from ragray.serve.schema import EXAMPLE_QUESTION, EXAMPLE_SNAPSHOT, MAX_ANSWER_K, Wire

MAX_STOP = 4
MAX_MESSAGES = 1000

NEUTRAL: Mapping[str, tuple[JsonValue, ...]] = {
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
"""Fields of OpenAI's interface that ragray cannot follow, each with the values that ask for nothing."""

WHY = {
    "n": "one answer is written for a request: leave it out, or send 1",
}
"""Why a field of `NEUTRAL` is refused, where more can be said than that it is not supported."""


def _text_of_parts(content: object) -> object:
    """Join a list of text parts; anything else is left to the check that follows."""
    if not isinstance(content, list):
        return "" if content is None else content
    texts = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(text, str):
            raise PydanticCustomError("unsupported_value", _shown(f"part {number} is no text, and only text is read"))
        texts.append(text)
    return "\n".join(texts)


def _listed(stop: object) -> object:
    return [stop] if isinstance(stop, str) else [] if stop is None else stop


def _shown(text: str) -> str:
    """Return a text as a template of an error that shows it as it is."""
    return text.replace("{", "{{").replace("}", "}}")


class ChatMessage(Wire):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="who says it", examples=["user"])
    content: Annotated[str, BeforeValidator(_text_of_parts)] = Field(
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


class Retrieval(Wire):
    """How passages are looked up for the last message; a field of ragray, not of OpenAI."""

    mode: Literal["dense", "lexical", "hybrid"] | None = Field(
        None, description="search by vectors, by words or by both; the service's own mode if left out"
    )
    k: int | None = Field(
        None,
        ge=1,
        le=MAX_ANSWER_K,
        strict=True,
        description="passages read; the service's own k if left out",
        examples=[3],
    )
    filter: str = Field(
        "",
        description="only passages whose metadata match, beside the service's own filter",
        examples=["lang == en and year >= 2020"],
    )
    snapshot: str = Field(
        "",
        description="refuse to answer from another snapshot of the index than this one",
        examples=[EXAMPLE_SNAPSHOT],
    )
    closed_book: bool = Field(False, description="answer without looking anything up, to compare; alone")


class ChatRequest(Wire):
    """A conversation whose last message is to be answered."""

    model: str = Field(description="what answers, as `GET /v1/models` lists it", examples=["run-1a2b3c4d"])
    messages: tuple[ChatMessage, ...] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="the conversation, oldest first; the last message is the user's question, for which passages are looked up",
    )
    stream: bool = Field(False, description="send the answer as server-sent events while it is written")
    stream_options: StreamOptions | None = Field(None, description="only with `stream`")
    max_tokens: int | None = Field(None, ge=1, strict=True, description="tokens of the answer at most", examples=[32])
    max_completion_tokens: int | None = Field(None, ge=1, strict=True, description="the newer name of max_tokens")
    stop: Annotated[tuple[Annotated[str, StringConstraints(min_length=1)], ...], BeforeValidator(_listed)] = Field(
        (), max_length=MAX_STOP, description="texts before which the answer ends", examples=["\n"]
    )
    retrieval: Retrieval = Field(Retrieval(), description="how passages are looked up; a field of ragray")
    temperature: float | None = Field(
        None,
        ge=0,
        le=2,
        description="above 0 tokens are drawn at random, from p^(1/temperature); left out or 0: each is the most probable one",
        examples=[0],
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="share of the probability that tokens are drawn from; only with a temperature"
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="the same seed gives the same draws; greedy answers are the same with every seed",
    )
    user: str | None = Field(None, description="who asks, for the caller's own records")
    safety_identifier: str | None = Field(None, description="who asks, for the caller's own records")
    prompt_cache_key: str | None = Field(None, description="without effect on the answer")
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
        name = str(info.field_name)
        if value is None or any(_same(value, neutral) for neutral in NEUTRAL[name]):
            return value
        raise PydanticCustomError("unsupported_parameter", _shown(WHY.get(name, "is not supported: leave it out")))

    @field_validator("temperature", "top_p", "seed", mode="before")
    @classmethod
    def _is_no_truth_value(cls, value: object) -> object:
        """Refuse true and false, which would count as 1 and 0."""
        if isinstance(value, bool):
            raise PydanticCustomError("invalid_type", "is a truth value, expected a number")
        return value

    @property
    def sampling(self) -> Sampling:
        """How the answer is to be written."""
        top_p = 1.0 if self.top_p is None else self.top_p
        return Sampling(self.max_new_tokens, self.stop, self.temperature or 0.0, top_p, self.seed)

    @property
    def max_new_tokens(self) -> int | None:
        """Tokens of the answer at most, by whichever name; None is the engine's own limit."""
        given = [number for number in (self.max_tokens, self.max_completion_tokens) if number is not None]
        return min(given, default=None)


def _same(value: JsonValue, other: JsonValue) -> bool:
    """Compare as JSON does, where true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
