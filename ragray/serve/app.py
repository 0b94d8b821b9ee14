"""The HTTP interface. In: an `Answerer`. Out: a FastAPI application that knows nothing of Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

from fastapi import APIRouter, FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from ragray.config import ServeConfig
from ragray.errors import RagrayError, ServingError
from ragray.generate.orchestrator import QuestionRequest
from ragray.retrieve.caller import current_caller
from ragray.serve.access.door import Door
from ragray.serve.access.keyring import Keyring
from ragray.serve.access.log import AccessLog, open_log
from ragray.serve.access.served import NamesServed, timing
from ragray.serve.answerer import Answerer
from ragray.serve.batch.route import add_batch
from ragray.serve.failure import POST_ERRORS, ForeignRoute, Refused, error_responses, failure_of, refusing
from ragray.serve.guard import ALWAYS_ANSWERED, BodyLimit, Gate, Gated, Limits, Responds, with_cors
from ragray.serve.load.deadline import Deadline
from ragray.serve.lookup.dify import DifyError, DifyRoute, add_dify
from ragray.serve.lookup.trainers import add_retrieve
from ragray.serve.mcp.route import add_mcp
from ragray.serve.metrics.measured import Measured
from ragray.serve.metrics.port import Metrics
from ragray.serve.metrics.prometheus import PrometheusMetrics, add_metrics
from ragray.serve.openai.chat import add_chat
from ragray.serve.openai.embeddings import add_embeddings
from ragray.serve.openai.errors import OpenAIErrorResponse, OpenAIRoute
from ragray.serve.openai.models import add_models
from ragray.serve.openai.rerank import add_rerank
from ragray.serve.openai.responses.route import add_responses
from ragray.serve.page.routes import add_page, site
from ragray.serve.schema import (
    AliveResponse,
    AnswerRequest,
    AnswerResponse,
    ErrorResponse,
    HealthResponse,
    SearchRequest,
    SearchResponse,
)
from ragray.serve.stream import EVENT_EXAMPLE, open_stream
from ragray.serve.strict import JsonRoute, require_short

HEALTH_TIMEOUT_S = 10.0

DESCRIPTION = """Answers questions from a corpus and says which passages each answer was written from.

* `POST /v1/answer` looks passages up and writes an answer, at once or as server-sent events;
* `POST /v1/search` only looks passages up;
* `POST /v1/chat/completions`, `/v1/responses`, `/v1/embeddings`, `/v1/rerank` and `GET /v1/models` are for OpenAI's clients;
* `POST /v1/batch` takes many of these requests, one per line;
* `POST /retrieve` is for trainers by reinforcement learning, `POST /retrieval` is Dify's external knowledge;
* `POST /mcp` is for clients of the Model Context Protocol: the tools `search` and `fetch`;
* `GET /healthz` is 200 as soon as the service runs, also while it loads its models;
* `GET /readyz` says what is served, or why nothing is;
* `GET /` is a page to ask from.

A header `x-request-timeout: SECONDS` says how long a request wants to wait: what cannot be answered by then is refused at once with 429,
what is not answered by then ends with 504. `x-ragray-degraded` in a response says what was spared because many were waiting.

Every error has the body `{"error": {"type": ..., "message": ...}}`, with `param` and `code` on OpenAI's routes; Dify's has its own.
"""


ANSWER_RESPONSES = {
    200: {
        "description": "The answer, whole or (with `stream`) as events.",
        "content": {"text/event-stream": {"schema": {}, "example": EVENT_EXAMPLE}},
    },
    **error_responses(*POST_ERRORS),
}


def create_app(
    answerer: Answerer, config: ServeConfig, gate: Gate | None = None, metrics: Metrics | None = None
) -> FastAPI:
    """Make the application. A request that is invalid, too late or too much is answered with one error body.

    Once ``gate`` is closed, new requests are refused with 503; those that are open are still answered. What is measured goes to
    ``metrics``; without them it is kept in this process, with what the answerer has to show, and shown at `/metrics`.
    """
    metrics = metrics or PrometheusMetrics(lambda: answerer.gauges())
    app = FastAPI(title="ragray", version="1", description=DESCRIPTION, docs_url=None, redoc_url=None)
    for kind in (Refused, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _respond)
    ask = APIRouter(route_class=JsonRoute)
    _add_answer(ask, answerer, config)
    _add_search(ask, answerer, config)
    add_retrieve(ask, answerer, config)
    batch, operate = APIRouter(), APIRouter()
    add_batch(batch, config)
    if isinstance(metrics, PrometheusMetrics):
        add_metrics(operate, metrics)
    openai, dify = _openai(answerer, config), _dify(answerer, config)
    for routes, error in (
        (ask, ErrorResponse),
        (batch, ErrorResponse),
        (operate, ErrorResponse),
        (openai, OpenAIErrorResponse),
        (dify, DifyError),
    ):
        # Only what OpenAPI says of keys: `Door` asks for them, whatever a route declares.
        secured = [Security(HTTPBearer(auto_error=False))] if config.keys_file else []
        responses = error_responses(401, 429, model=error) if config.keys_file else {}
        app.include_router(routes, dependencies=secured, responses=responses)
    gate = gate or Gate()
    _add_health(app, answerer, gate, with_keys=bool(config.keys_file))
    add_mcp(app, answerer, config)
    add_page(app)
    app.add_middleware(NamesServed, answerer=answerer)
    _add_guards(app, config, gate, _foreign(openai, dify), metrics)
    return app


def _add_guards(app: FastAPI, config: ServeConfig, gate: Gate, responds: Responds, metrics: Metrics) -> None:
    """Put what every request passes before the routes, the last added first."""
    app.add_middleware(BodyLimit, max_bytes=config.max_body_bytes, responds=responds)
    app.add_middleware(Deadline)
    if config.keys_file:
        # The files of the page hold nothing of the corpus, and a browser needs them to ask for a key.
        open_paths = (*ALWAYS_ANSWERED, *site().paths)
        keyring = Keyring(Path(config.keys_file))
        app.add_middleware(Door, keyring=keyring, open_paths=open_paths, responds=responds)
    limits = Limits(config.max_body_bytes, config.cors_origins)
    app.add_middleware(Gated, gate=gate, limits=limits, responds=responds)
    app.add_middleware(Measured, metrics=metrics)
    app.add_middleware(AccessLog, write=open_log(config), with_questions=config.log_questions)
    app.add_middleware(with_cors, origins=config.cors_origins)


def _foreign(*routers: APIRouter) -> Responds:
    """Return for each path whose errors are those of another interface how they are written."""
    routes = (route for router in routers for route in router.routes)
    return {route.path: route.respond for route in routes if isinstance(route, ForeignRoute)}


def _openai(answerer: Answerer, config: ServeConfig) -> APIRouter:
    """Return the routes whose errors are OpenAI's."""
    routes = APIRouter(route_class=OpenAIRoute)
    for add in (add_chat, add_responses, add_embeddings, add_rerank, add_models):
        add(routes, answerer, config)
    return routes


def _dify(answerer: Answerer, config: ServeConfig) -> APIRouter:
    """Return the route whose errors are Dify's."""
    routes = APIRouter(route_class=DifyRoute)
    add_dify(routes, answerer, config)
    return routes


def _add_answer(app: APIRouter, answerer: Answerer, config: ServeConfig) -> None:
    @app.post(
        "/v1/answer",
        summary="Answer a question",
        tags=["ask"],
        response_model=AnswerResponse,
        responses=ANSWER_RESPONSES,
    )
    async def answer(body: AnswerRequest, response: Response) -> AnswerResponse | Response:
        """Look passages up, write an answer from them, and say how much each passage supports it.

        With `stream` the answer comes as server-sent events while it is written: `data: {"delta": "..."}` for each
        piece, then `event: answer` with the JSON that comes without `stream`, or `event: error` with an error body.
        """
        require_short("question", body.question, config.max_question_chars)
        request = QuestionRequest(body.question, k=body.k, closed_book=body.closed_book)
        async with refusing(config.request_timeout_s):
            if body.stream:
                return await open_stream(answerer.stream(request), timeout_s=config.request_timeout_s)
            served = await answerer.answer(request)
            response.headers.update(timing(retrieve=served.retrieve_s, generate=served.generate_s))
            return AnswerResponse.of(served)


def _add_search(app: APIRouter, answerer: Answerer, config: ServeConfig) -> None:
    @app.post("/v1/search", summary="Look passages up", tags=["ask"], responses=error_responses(*POST_ERRORS))
    async def search(body: SearchRequest, response: Response) -> SearchResponse:
        """Return the passages nearest to a query, best first, without writing an answer."""
        require_short("query", body.query, config.max_question_chars)
        async with refusing(config.request_timeout_s):
            started = monotonic()
            found = await answerer.search(body.query, k=body.k)
            response.headers.update(timing(retrieve=monotonic() - started))
            return SearchResponse.of(found)


def _add_health(app: FastAPI, answerer: Answerer, gate: Gate, *, with_keys: bool) -> None:
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Say that the service runs", tags=["operate"])
    async def healthz() -> AliveResponse:
        """Return 200 as soon as anything of the service runs, also while it loads its models and while it stops."""
        return AliveResponse()

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", summary="Say what is served", tags=["operate"], responses=error_responses(500, 503))
    async def readyz() -> HealthResponse:
        """Return 200 with the snapshot and run that are served, or 503 with the reason why nothing is.

        Where keys are in force, the index's folder and why another snapshot was refused are told to those who bring one.
        """
        async with refusing(2 * HEALTH_TIMEOUT_S):
            if gate.closed:
                raise ServingError("the service is stopping")
            try:
                async with asyncio.timeout(HEALTH_TIMEOUT_S):
                    health = await answerer.health()
            except TimeoutError as err:
                raise ServingError(f"the retriever did not answer within {HEALTH_TIMEOUT_S:.0f} s") from err
            except RagrayError as err:
                raise ServingError(str(err)) from err
            known = current_caller().name or not with_keys
            return HealthResponse.of(health if known else health.for_strangers())


async def _respond(request: Request, err: Exception) -> Response:
    failure = failure_of(err)
    if request.method == "OPTIONS" and failure.allow:
        return Response(status_code=204, headers={"Allow": failure.allow})
    return failure.response()
