"""`POST /v1/rerank`, as Jina and Cohere have it. In: a query and documents. Out: the documents by relevance, best first."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import APIRouter
from pydantic import BeforeValidator, Field

from ragray.config import ServeConfig
from ragray.serve.answerer import Answerer
from ragray.serve.failure import Failure, Refused, refusing
from ragray.serve.openai.errors import OPENAI_ERRORS
from ragray.serve.openai.models import require_model
from ragray.serve.schema import EXAMPLE_QUESTION, Text, Wire
from ragray.serve.strict import require_short
from ragray.types import Hit, Passage

MAX_DOCUMENTS = 1000
NONE_LOADED = Failure(
    404,
    "invalid_request",
    "no reranker is served: name one with retrieve.rerank_model and start the service again",
    code="model_not_found",
)


def _texts(documents: object) -> object:
    """Take documents that are objects with a text as their texts."""
    if not isinstance(documents, list):
        return documents
    return [one["text"] if isinstance(one, dict) and set(one) == {"text"} else one for one in documents]


class RerankRequest(Wire):
    """Documents to be ordered by their relevance for a query."""

    model: str = Field(description="the reranker, as `GET /v1/models` lists it")
    query: Text = Field(description="what the documents are to be relevant for", examples=[EXAMPLE_QUESTION])
    documents: Annotated[tuple[Text, ...], BeforeValidator(_texts)] = Field(
        min_length=1, max_length=MAX_DOCUMENTS, description='texts, or objects `{"text": ...}`'
    )
    top_n: int | None = Field(None, ge=1, strict=True, description="documents returned; all if left out")
    return_documents: bool = Field(False, description="return the texts too")


class RankedText(Wire):
    """The text of a ranked document."""

    text: str


class Ranked(Wire):
    """One document."""

    index: int = Field(description="its number in `documents`")
    relevance_score: float = Field(description="0 to 1: the logistic function of the reranker's score")
    document: RankedText | None = Field(description="its text, with `return_documents`")


class RerankResponse(Wire):
    """The documents, best first."""

    model: str
    results: tuple[Ranked, ...]


def add_rerank(app: APIRouter, answerer: Answerer, config: ServeConfig) -> None:
    """Add the route."""

    @app.post("/v1/rerank", summary="Order documents by relevance", tags=["openai"], responses=OPENAI_ERRORS)
    async def rerank(body: RerankRequest) -> RerankResponse:
        """Score documents of the caller's own with the reranker that searches use; 404 where none is configured."""
        async with refusing(config.request_timeout_s):
            served = (await answerer.models()).reranker
            if not served:
                raise Refused(NONE_LOADED)
            require_model(body.model, served)
            require_short("query", body.query, config.max_question_chars)
            passages = [Passage(str(index), text) for index, text in enumerate(body.documents)]
            ranked = (await answerer.rerank(body.query, passages))[: body.top_n]
            results = tuple(_ranked(hit, with_text=body.return_documents) for hit in ranked)
            return RerankResponse(model=body.model, results=results)


def _ranked(hit: Hit, *, with_text: bool) -> Ranked:
    document = RankedText(text=hit.passage.text) if with_text else None
    return Ranked(index=int(hit.passage.id), relevance_score=logistic(hit.score), document=document)


def logistic(score: float) -> float:
    """Return 1 / (1 + exp(-score)), also where the exponential would overflow."""
    return 0.5 * (1 + math.tanh(score / 2))
