"""The HTTP interface as data. In: JSON. Out: frozen, checked requests; and answers as the JSON that clients get."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from ragray.generate.orchestrator import ServedAnswer
from ragray.serve.answerer import Health
from ragray.text.checks import is_blank
from ragray.types import Citation, Hit, RetrievalResult

MAX_SEARCH_K = 1000
MAX_ANSWER_K = 50
"""Every passage of an answer is read by the generator, so that an answer's k is bounded much lower than a search's."""


def _visible(text: str) -> str:
    if is_blank(text):
        raise PydanticCustomError("string_too_short", "must not be empty")
    return text


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_visible)]
EXAMPLE_SNAPSHOT = "3f9c1e7ab2d04c55"
EXAMPLE_QUESTION = "Which river flows through Paris?"


class Wire(BaseModel):
    """Base of everything that goes over HTTP: frozen, and a key that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SearchRequest(Wire):
    """A query whose nearest passages are wanted."""

    query: Text = Field(description="what to look for, in words", examples=[EXAMPLE_QUESTION])
    k: int | None = Field(
        None,
        ge=1,
        le=MAX_SEARCH_K,
        strict=True,
        description="passages wanted; the service's own k if left out",
        examples=[3],
    )


class SearchHit(Wire):
    """A passage with its score."""

    id: str = Field(description="id of the passage", examples=["paris#0"])
    document_id: str = Field(description="id of the document it was cut from", examples=["paris"])
    title: str = Field(description="title of the document, or empty", examples=["Paris"])
    text: str = Field(description="the passage itself", examples=["The Seine flows through Paris."])
    score: float = Field(
        description="inner product, BM25 or fused score, by retrieve.mode; larger is better", examples=[0.83]
    )

    @classmethod
    def of(cls, hit: Hit) -> SearchHit:
        """Write a hit as JSON has it."""
        passage = hit.passage
        return cls(
            id=passage.id, document_id=passage.document_id, title=passage.title, text=passage.text, score=hit.score
        )


class SearchResponse(Wire):
    """The passages found, best first."""

    snapshot: str = Field(description="the snapshot of the index that was searched", examples=[EXAMPLE_SNAPSHOT])
    hits: tuple[SearchHit, ...] = Field(description="best first; fewer than k where the index holds fewer")

    @classmethod
    def of(cls, found: RetrievalResult) -> SearchResponse:
        """Write what was found as JSON has it."""
        return cls(snapshot=found.snapshot, hits=tuple(SearchHit.of(hit) for hit in found.hits))


class AnswerRequest(Wire):
    """A question."""

    question: Text = Field(description="the question, in words", examples=[EXAMPLE_QUESTION])
    k: int | None = Field(
        None,
        ge=1,
        le=MAX_ANSWER_K,
        strict=True,
        description="passages read for it; the service's own k if left out",
        examples=[3],
    )
    stream: bool = Field(
        False, description="send the answer as server-sent events while it is written", examples=[False]
    )
    closed_book: bool = Field(False, description="answer without looking anything up, to compare", examples=[False])


class CitationResponse(Wire):
    """A passage that the answer was written from."""

    number: int = Field(
        description="its `[n]` in the answer; without such, 1 for the passage that supports it best, then 2 and so on",
        examples=[1],
    )
    id: str = Field(description="id of the passage", examples=["paris#0"])
    title: str = Field(description="title of its document, or empty", examples=["Paris"])
    text: str = Field(description="the passage itself", examples=["The Seine flows through Paris."])
    score: float = Field(
        description="inner product, BM25 or fused score, by retrieve.mode; larger is better", examples=[0.83]
    )
    weight: float = Field(
        description="its share in the answer: p(passage | question, answer), or, cited by `[n]`, equal shares",
        examples=[0.91],
    )

    @classmethod
    def of(cls, number: int, citation: Citation) -> CitationResponse:
        """Write a citation as JSON has it."""
        passage = citation.hit.passage
        return cls(
            number=number,
            id=passage.id,
            title=passage.title,
            text=passage.text,
            score=citation.hit.score,
            weight=citation.weight,
        )


class Timings(Wire):
    """Where the time of a request went."""

    retrieve_s: float = Field(description="seconds of looking up, waiting included", examples=[0.021])
    generate_s: float = Field(description="seconds of writing, waiting included", examples=[1.4])


class AnswerResponse(Wire):
    """An answer with its sources."""

    question: str = Field(description="the question as it was answered", examples=[EXAMPLE_QUESTION])
    answer: str = Field(description="the answer", examples=["the Seine"])
    finish_reason: Literal["stop", "length"] = Field(
        description="stop: the answer is whole; length: it was cut at generate.max_new_tokens", examples=["stop"]
    )
    snapshot: str = Field(
        description="the snapshot it was answered from; empty for closed book", examples=[EXAMPLE_SNAPSHOT]
    )
    run: str = Field(description="the training run that wrote it; empty for the base model", examples=["run-1a2b3c4d"])
    citations: tuple[CitationResponse, ...] = Field(description="the passages read, by their numbers")
    timings: Timings = Field(description="where the time went")

    @classmethod
    def of(cls, served: ServedAnswer) -> AnswerResponse:
        """Write an answer as JSON has it."""
        answer = served.answer
        return cls(
            question=answer.question,
            answer=answer.text,
            finish_reason=answer.finish_reason,
            snapshot=answer.snapshot,
            run=served.run,
            citations=tuple(
                CitationResponse.of(number, cited) for number, cited in enumerate(answer.citations, start=1)
            ),
            timings=Timings(retrieve_s=round(served.retrieve_s, 6), generate_s=round(served.generate_s, 6)),
        )


class AliveResponse(Wire):
    """A sign of life."""

    status: Literal["alive"] = Field(
        "alive", description="whether requests can be answered yet is at /readyz", examples=["alive"]
    )


class HealthResponse(Wire):
    """What is served."""

    status: Literal["ok", "degraded"] = Field(
        description="degraded: a newer index was refused, the older one serves", examples=["ok"]
    )
    snapshot: str = Field(description="the snapshot that is searched", examples=[EXAMPLE_SNAPSHOT])
    run: str = Field(description="the training run that answers; empty for the base model", examples=["run-1a2b3c4d"])
    index: str = Field(description="folder of the index; empty for those without a key", examples=["/data/index"])
    loading: bool = Field(description="whether another index is being loaded beside it", examples=[False])
    last_error: str = Field(description="why the last index was refused; empty if it was not", examples=[""])

    @classmethod
    def of(cls, health: Health) -> HealthResponse:
        """Write a state of health as JSON has it."""
        return cls(
            status="degraded" if health.last_error else "ok",
            snapshot=health.snapshot,
            run=health.run,
            index=health.index,
            loading=health.loading,
            last_error=health.last_error,
        )


class ErrorDetail(Wire):
    """What went wrong."""

    type: str = Field(
        description="invalid_request, too_large, overloaded, timeout, unavailable, internal, ...",
        examples=["invalid_request"],
    )
    message: str = Field(description="one line for the person who reads it", examples=["question: must not be empty"])


class ErrorResponse(Wire):
    """The body of every response that is no success."""

    error: ErrorDetail = Field(description="what went wrong")


class Delta(Wire):
    """A piece of an answer that is being written."""

    delta: str = Field(description="text to append to what came before", examples=["the Se"])
