"""Which models are served. In: an answerer. Out: `GET /v1/models`, and the check of the name that a request asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from ragray.config import ServeConfig
from ragray.serve.answerer import Answerer
from ragray.serve.failure import Failure, Refused, refusing
from ragray.serve.openai.errors import OPENAI_ERRORS
from ragray.serve.schema import Wire


class ServedModel(Wire):
    """A model that can be named in a request."""

    id: str = Field(description="its name: that of the run, or of the base model", examples=["run-1a2b3c4d"])
    object: Literal["model"]
    created: int = Field(description="not known: 0")
    owned_by: Literal["ragray"]
    used_for: Literal["chat", "embeddings", "rerank"] = Field(description="the route that takes it; a field of ragray")


class ModelList(Wire):
    """The models that are served."""

    object: Literal["list"]
    data: tuple[ServedModel, ...]


def add_models(app: APIRouter, answerer: Answerer, config: ServeConfig) -> None:
    """Add the route."""

    @app.get("/v1/models", summary="List what is served", tags=["openai"], responses=OPENAI_ERRORS)
    async def models() -> ModelList:
        """Return the names for the field `model` of the other routes, and which route takes each."""
        async with refusing(config.request_timeout_s):
            beside = await answerer.models()
            found = [
                _model(public_name(answerer.model), "chat"),
                *([_model(public_name(beside.encoder), "embeddings")] if beside.encoder else []),
                *([_model(public_name(beside.reranker), "rerank")] if beside.reranker else []),
            ]
            return ModelList(object="list", data=tuple(found))


def _model(name: str, used_for: Literal["chat", "embeddings", "rerank"]) -> ServedModel:
    return ServedModel(id=name, object="model", created=0, owned_by="ragray", used_for=used_for)


def public_name(model: str) -> str:
    """Return the name of a model as clients see it: of a folder on this machine only the last part."""
    return Path(model).name if Path(model).is_absolute() else model


def require_model(wanted: str, served: str) -> None:
    """Refuse a request with 404 that names another model than the one that is served."""
    known = public_name(served)
    if wanted != known:
        message = f"model: '{wanted}' is not served here, '{known}' is (GET /v1/models lists all)"
        raise Refused(Failure(404, "invalid_request", message, param="model", code="model_not_found"))
