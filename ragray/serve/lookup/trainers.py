"""`POST /retrieve`, as trainers by reinforcement learning call it. In: queries. Out: for each its documents, as lists.

The shape is that of the retrieval servers of Search-R1 and its relatives, whose clients give up on 429: where too many requests
wait, this route waits too, and answers 503 only when the time of a request is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

from fastapi import APIRouter
from pydantic import Field

from ragray.config import ServeConfig
from ragray.errors import OverloadedError, ServingError
from ragray.serve.answerer import Answerer
from ragray.serve.failure import POST_ERRORS, error_responses, refusing
from ragray.serve.schema import EXAMPLE_QUESTION, MAX_SEARCH_K, Wire
from ragray.serve.strict import require_short
from ragray.text.checks import is_blank
from ragray.types import Hit, Passage, RetrievalResult

MAX_QUERIES = 4096
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.5
"""Pauses before an overloaded retriever is asked again; each is twice the one before."""


class RetrieveRequest(Wire):
    """Queries of a batch of rollouts."""

    queries: tuple[str, ...] = Field(
        min_length=1,
        max_length=MAX_QUERIES,
        description="what to look for; a blank query, which a model may write, has an empty result",
        examples=[[EXAMPLE_QUESTION]],
    )
    topk: int | None = Field(
        None,
        ge=1,
        le=MAX_SEARCH_K,
        strict=True,
        description="documents per query; the service's own k if left out",
        examples=[3],
    )
    return_scores: bool = Field(False, description="return each document with its score")


class TrainerDocument(Wire):
    """A passage."""

    id: str = Field(description="id of the passage", examples=["paris#0"])
    contents: str = Field(
        description="the title in quotation marks, a line break, the text",
        examples=['"Paris"\nThe Seine flows through Paris.'],
    )

    @classmethod
    def of(cls, passage: Passage) -> TrainerDocument:
        """Write a passage as JSON has it."""
        return cls(id=passage.id, contents=f'"{passage.title}"\n{passage.text}')


class ScoredDocument(Wire):
    """A passage with its score."""

    document: TrainerDocument
    score: float = Field(description="inner product, BM25 or fused score, by retrieve.mode; larger is better")


class RetrieveResponse(Wire):
    """The documents of every query, in the order of the queries, best first."""

    result: tuple[tuple[ScoredDocument | TrainerDocument, ...], ...]


def add_retrieve(app: APIRouter, answerer: Answerer, config: ServeConfig) -> None:
    """Add the route."""

    @app.post(
        "/retrieve",
        summary="Look passages up for many queries",
        tags=["lookup"],
        responses=error_responses(*(status for status in POST_ERRORS if status != 429)),
    )
    async def retrieve(body: RetrieveRequest) -> RetrieveResponse:
        """Return the passages nearest to each query, all from one snapshot."""
        for number, query in enumerate(body.queries):
            require_short(f"queries.{number}", query, config.max_question_chars)
        async with refusing(config.request_timeout_s + FIRST_PAUSE_S):
            found = await _search(answerer, body.queries, body.topk, config.request_timeout_s)
            return RetrieveResponse(result=tuple(_written(hits, body.return_scores) for hits in found))


async def _search(answerer: Answerer, queries: Sequence[str], k: int | None, timeout_s: float) -> list[tuple[Hit, ...]]:
    """Return the hits of every query; none for one that is blank."""
    asked = [number for number, query in enumerate(queries) if not is_blank(query)]
    found: list[tuple[Hit, ...]] = [()] * len(queries)
    if asked:
        results = await _when_free(answerer, [queries[number] for number in asked], k, timeout_s)
        for number, result in zip(asked, results, strict=True):
            found[number] = result.hits
    return found


async def _when_free(
    answerer: Answerer, queries: Sequence[str], k: int | None, timeout_s: float
) -> list[RetrievalResult]:
    """Search, again and again while the retriever is overloaded; raises `ServingError` when the time is over."""
    pause_s, deadline = FIRST_PAUSE_S, monotonic() + timeout_s
    while True:
        try:
            return await answerer.search_all(queries, k=k)
        except OverloadedError as err:
            if monotonic() + pause_s > deadline:
                raise ServingError(f"overloaded for {timeout_s:g} s ({err})") from err
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _written(hits: Sequence[Hit], with_scores: bool) -> tuple[ScoredDocument | TrainerDocument, ...]:
    documents = [TrainerDocument.of(hit.passage) for hit in hits]
    if not with_scores:
        return tuple(documents)
    return tuple(ScoredDocument(document=one, score=hit.score) for one, hit in zip(documents, hits, strict=True))
