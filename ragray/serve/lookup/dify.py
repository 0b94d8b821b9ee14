"""`POST /retrieval`, Dify's external knowledge. In: a query, and which passages count. Out: records with score, title, metadata."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from ragray.config import ServeConfig
from ragray.retrieve.retriever import SearchOptions
from ragray.serve.answerer import Answerer
from ragray.serve.failure import BAD_KEY, NO_KEY, Failure, ForeignRoute, Refused, error_responses, refusing
from ragray.serve.lookup.dify_filter import MetadataCondition, to_filter
from ragray.serve.schema import EXAMPLE_QUESTION, MAX_SEARCH_K, Text, Wire
from ragray.serve.strict import require_short
from ragray.types import Hit

KNOWLEDGE = "ragray"
"""The one `knowledge_id`: a service serves one index."""

UNKNOWN_KNOWLEDGE = 2001
"""Dify's code of a knowledge that does not exist."""

CODES = {NO_KEY: 1001, BAD_KEY: 1002}
"""Dify's codes of a header Authorization that has the wrong form, and of a key that is not known."""


class DifyError(Wire):
    """The body of every response that is no success."""

    error_code: int = Field(
        description="1001: no key, 1002: an unknown key, 2001: no such knowledge; else the status",
        examples=[UNKNOWN_KNOWLEDGE],
    )
    error_msg: str = Field(description="one line for the person who reads it")


class DifyRoute(ForeignRoute):
    """A route whose errors are those of Dify."""

    @staticmethod
    def respond(failure: Failure) -> Response:
        """Return the response of a failure."""
        code = int(failure.code) if failure.code.isdigit() else CODES.get(failure.code, failure.status)
        body = DifyError(error_code=code, error_msg=failure.message)
        return JSONResponse(body.model_dump(mode="json"), failure.status, failure.headers())


class RetrievalSetting(Wire):
    """Which passages count."""

    top_k: int = Field(ge=1, le=MAX_SEARCH_K, strict=True, description="passages at most", examples=[3])
    score_threshold: float = Field(0.0, description="passages with a smaller score are left out", examples=[0.5])


class DifyRequest(Wire):
    """A query to the knowledge."""

    knowledge_id: str = Field(description=f"`{KNOWLEDGE}`", examples=[KNOWLEDGE])
    query: Text = Field(description="what to look for, in words", examples=[EXAMPLE_QUESTION])
    retrieval_setting: RetrievalSetting = Field(description="which passages count")
    metadata_condition: MetadataCondition | None = Field(None, description="only passages whose metadata match")


class DifyRecord(Wire):
    """A passage."""

    content: str = Field(description="the passage itself")
    score: float = Field(description="inner product, BM25 or fused score, by retrieve.mode; larger is better")
    title: str = Field(description="title of the document, or empty")
    metadata: dict[str, str] = Field(description="those of the document, with `passage_id` and `document_id`")

    @classmethod
    def of(cls, hit: Hit) -> DifyRecord:
        """Write a hit as JSON has it."""
        passage = hit.passage
        own = {"passage_id": passage.id, "document_id": passage.document_id}
        return cls(content=passage.text, score=hit.score, title=passage.title, metadata={**passage.metadata, **own})


class DifyResponse(Wire):
    """The passages, best first."""

    records: tuple[DifyRecord, ...]


def add_dify(app: APIRouter, answerer: Answerer, config: ServeConfig) -> None:
    """Add the route."""

    @app.post(
        "/retrieval",
        summary="Look passages up for Dify",
        tags=["lookup"],
        responses=error_responses(400, 404, 413, 415, 429, 500, 503, 504, model=DifyError),
    )
    async def retrieval(body: DifyRequest) -> DifyResponse:
        """Return the passages nearest to a query that have at least the score, as Dify's external knowledge API asks."""
        async with refusing(config.request_timeout_s):
            _require_known(body.knowledge_id)
            require_short("query", body.query, config.max_question_chars)
            options = SearchOptions(where=to_filter(body.metadata_condition))
            setting = body.retrieval_setting
            [found] = await answerer.search_all([body.query], k=setting.top_k, options=options)
            hits = [hit for hit in found.hits if hit.score >= setting.score_threshold]
            return DifyResponse(records=tuple(map(DifyRecord.of, hits)))


def _require_known(knowledge: str) -> None:
    if knowledge != KNOWLEDGE:
        message = f"knowledge_id: '{knowledge}' does not exist, '{KNOWLEDGE}' does"
        raise Refused(Failure(404, "not_found", message, param="knowledge_id", code=str(UNKNOWN_KNOWLEDGE)))
