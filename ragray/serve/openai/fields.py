"""What chat completions and responses have in common. In: fields of a request. Out: checked values, or a refusal by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, JsonValue, field_validator
from pydantic_core import PydanticCustomError

from ragray.generate.engine import Sampling
from ragray.serve.schema import EXAMPLE_SNAPSHOT, MAX_ANSWER_K, Wire

Neutral = Mapping[str, tuple[JsonValue, ...]]
"""Fields of OpenAI's interface that ragray cannot follow, each with the values that ask for nothing."""


def require_neutral(name: str, value: JsonValue, neutral: Neutral, why: Mapping[str, str]) -> JsonValue:
    """Return a value that asks for nothing; raises `PydanticCustomError`, with the reason in ``why`` if it is there, of any other."""
    if value is None or any(_same(value, one) for one in neutral[name]):
        return value
    raise PydanticCustomError("unsupported_parameter", shown(why.get(name, "is not supported: leave it out")))


def text_of_parts(content: object, kinds: tuple[str, ...]) -> object:
    """Join a list of parts of these types, which are texts; anything else is left to the check that follows."""
    if not isinstance(content, list):
        return "" if content is None else content
    texts = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else None
        if kind not in kinds or not isinstance(text, str):
            raise PydanticCustomError("unsupported_value", shown(f"part {number} is no text, and only text is read"))
        texts.append(text)
    return "\n".join(texts)


def shown(text: str) -> str:
    """Return a text as a template of an error that shows it as it is."""
    return text.replace("{", "{{").replace("}", "}}")


def _same(value: JsonValue, other: JsonValue) -> bool:
    """Compare as JSON does, where true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


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


class Asked(Wire):
    """What answers, how passages are looked up for it, and how the answer is drawn."""

    model: str = Field(description="what answers, as `GET /v1/models` lists it", examples=["run-1a2b3c4d"])
    stream: bool = Field(False, description="send the answer as server-sent events while it is written")
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
    user: str | None = Field(None, description="who asks, for the caller's own records")
    safety_identifier: str | None = Field(None, description="who asks, for the caller's own records")
    prompt_cache_key: str | None = Field(None, description="without effect on the answer")

    @field_validator("temperature", "top_p", mode="before")
    @classmethod
    def _is_no_truth_value(cls, value: object) -> object:
        """Refuse true and false, which would count as 1 and 0."""
        return require_no_truth_value(value)

    def sampled(self, max_new_tokens: int | None, stop: tuple[str, ...] = (), seed: int | None = None) -> Sampling:
        """Return how the answer is to be written."""
        top_p = 1.0 if self.top_p is None else self.top_p
        return Sampling(max_new_tokens, stop, self.temperature or 0.0, top_p, seed)


def require_no_truth_value(value: object) -> object:
    """Return a value; raises `PydanticCustomError` of true and false, which would count as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("invalid_type", "is a truth value, expected a number")
    return value
