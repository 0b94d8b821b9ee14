"""`POST /v1/embeddings`. In: texts. Out: their vectors by the question encoder of the index that is served."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import BeforeValidator, Field

from ragray.config import ServeConfig
from ragray.retrieve.retriever import Embedded
from ragray.serve.answerer import Answerer
from ragray.serve.failure import refusing
from ragray.serve.openai.errors import OPENAI_ERRORS
from ragray.serve.openai.models import require_model
from ragray.serve.schema import EXAMPLE_QUESTION, Text, Wire
from ragray.serve.strict import invalid, require_short

MAX_INPUTS = 2048


def _listed(texts: object) -> object:
    return [texts] if isinstance(texts, str) else texts


class EmbeddingsRequest(Wire):
    """Texts whose vectors are wanted."""

    model: str = Field(description="the encoder, as `GET /v1/models` lists it", examples=["all-minilm-l6-v2"])
    input: Annotated[tuple[Text, ...], BeforeValidator(_listed)] = Field(
        min_length=1,
        max_length=MAX_INPUTS,
        description="a text or a list of texts; lists of token ids are refused",
        examples=[EXAMPLE_QUESTION],
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="numbers, or base64 of little-endian float32"
    )
    dimensions: int | None = Field(None, ge=1, strict=True, description="only the number that the encoder has")
    user: str | None = Field(None, description="who asks, for the caller's own records")


class Embedding(Wire):
    """The vector of one text."""

    object: Literal["embedding"]
    index: int = Field(description="the number of the text in `input`")
    embedding: tuple[float, ...] | str = Field(description="the vector, as `encoding_format` says")


class EmbeddingsUsage(Wire):
    """Tokens that the encoder read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(Wire):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: tuple[Embedding, ...]
    model: str
    usage: EmbeddingsUsage


def add_embeddings(app: APIRouter, answerer: Answerer, config: ServeConfig) -> None:
    """Add the route."""

    @app.post("/v1/embeddings", summary="Encode texts", tags=["openai"], responses=OPENAI_ERRORS)
    async def embeddings(body: EmbeddingsRequest) -> EmbeddingsResponse:
        """Return vectors whose inner products with those of the index are its scores: texts are encoded as questions are."""
        async with refusing(config.request_timeout_s):
            for number, text in enumerate(body.input):
                require_short(f"input.{number}", text, config.max_question_chars)
            require_model(body.model, (await answerer.models()).encoder)
            return _response(body, await answerer.embed(body.input))


def _response(body: EmbeddingsRequest, embedded: Embedded) -> EmbeddingsResponse:
    dim = embedded.vectors_ND.shape[1]
    if body.dimensions not in (None, dim):
        raise invalid(("dimensions",), f"is {body.dimensions}, the encoder has {dim}", "invalid_value")
    data = tuple(
        Embedding(object="embedding", index=index, embedding=_written(vector_D, body.encoding_format))
        for index, vector_D in enumerate(embedded.vectors_ND)
    )
    usage = EmbeddingsUsage(prompt_tokens=embedded.num_tokens, total_tokens=embedded.num_tokens)
    return EmbeddingsResponse(object="list", data=data, model=body.model, usage=usage)


def _written(vector_D: np.ndarray, form: Literal["float", "base64"]) -> tuple[float, ...] | str:
    if form == "float":
        return tuple(vector_D.tolist())
    return base64.b64encode(vector_D.astype("<f4").tobytes()).decode("ascii")
