"""The tools `search` and `fetch`. In: their arguments. Out: what they return, in the shape that OpenAI's connectors expect.

The shape is that of https://developers.openai.com/api/docs/mcp: results of id, title and url; documents of these with text and metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError

from ragray.config import ServeConfig
from ragray.index.search.filter import quoted
from ragray.retrieve.retriever import SearchOptions
from ragray.serve.answerer import Answerer
from ragray.serve.failure import Failure, Refused
from ragray.serve.openai.chat_response import url_of
from ragray.serve.schema import Text, Wire
from ragray.serve.strict import require_short
from ragray.types import Passage

RESULTS = 10
"""Passages that a search returns: the tool has no argument for it."""

W = TypeVar("W", bound=Wire)


class SearchArguments(Wire):
    """What to look for."""

    query: Text = Field(description="what to look for, in words")


class FetchArguments(Wire):
    """What to read."""

    id: str = Field(min_length=1, description="the `id` of a search result")


class Found(Wire):
    """A passage that was found."""

    id: str = Field(description="what `fetch` takes")
    title: str = Field(description="title of the document, or its id")
    url: str = Field(description="where it can be read, for citations")
    text: str = Field(description="the passage itself")

    @classmethod
    def of(cls, passage: Passage) -> Found:
        """Write a passage as JSON has it."""
        return cls(id=passage.id, title=_title(passage), url=url_of(passage), text=passage.text)


class SearchResults(Wire):
    """The passages that were found, best first."""

    results: tuple[Found, ...]


class FetchedDocument(Found):
    """A passage with all that is known of it."""

    metadata: dict[str, str | tuple[str, ...]] = Field(description="metadata of the document, its id among them")

    @classmethod
    def of(cls, passage: Passage) -> FetchedDocument:
        """Write a passage as JSON has it."""
        metadata = {**passage.metadata, "document_id": passage.document_id}
        return cls(**Found.of(passage).model_dump(), metadata=metadata)


class Tools:
    """The tools over an answerer: every look-up passes the filter of the caller's key there."""

    def __init__(self, answerer: Answerer, config: ServeConfig) -> None:
        self._answerer = answerer
        self._max_chars = config.max_question_chars

    async def search(self, arguments: Mapping[str, object]) -> SearchResults:
        """Return the passages nearest to a query."""
        asked = _checked(SearchArguments, arguments)
        require_short("query", asked.query, self._max_chars)
        found = await self._answerer.search(asked.query, k=RESULTS)
        return SearchResults(results=tuple(Found.of(hit.passage) for hit in found.hits))

    async def fetch(self, arguments: Mapping[str, object]) -> FetchedDocument:
        """Return a passage by its id; one outside the filter of the caller's key is not found."""
        asked = _checked(FetchArguments, arguments)
        require_short("id", asked.id, self._max_chars)
        options = SearchOptions(where=f"id == {quoted(asked.id)}", listed=True)
        [found] = await self._answerer.search_all([asked.id], k=1, options=options)
        if not found.hits:
            message = f"id: there is no passage '{asked.id}'; ask for the `id` of a search result"
            raise Refused(Failure(404, "not_found", message))
        return FetchedDocument.of(found.hits[0].passage)


def _checked(kind: type[W], arguments: Mapping[str, object]) -> W:
    """Return arguments as they are expected; raises `RequestValidationError`, which names what is wrong."""
    try:
        return kind.model_validate(arguments)
    except ValidationError as err:
        faults = err.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from err


def _title(passage: Passage) -> str:
    return passage.title or passage.document_id or passage.id
