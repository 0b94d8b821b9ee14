"""`POST /v1/responses`. In: a text or a conversation. Out: the answer to its last message, whole or as events."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from ragray.config import ServeConfig
from ragray.serve.access.served import timing
from ragray.serve.answerer import Answerer
from ragray.serve.failure import refusing
from ragray.serve.openai.conversation import to_question
from ragray.serve.openai.errors import OPENAI_ERRORS
from ragray.serve.openai.models import require_model
from ragray.serve.openai.responses.events import EVENTS_EXAMPLE, ResponseEvents
from ragray.serve.openai.responses.request import ResponseRequest
from ragray.serve.openai.responses.response import ResponseHead, ResponseObject, response_of
from ragray.serve.stream import open_stream

RESPONSES = {
    200: {
        "description": "The answer, whole or (with `stream`) as events.",
        "content": {"text/event-stream": {"schema": {}, "example": EVENTS_EXAMPLE}},
    },
    **OPENAI_ERRORS,
}


def add_responses(app: APIRouter, answerer: Answerer, config: ServeConfig) -> None:
    """Add the route."""

    @app.post(
        "/v1/responses",
        summary="Answer a text, or the last message of a conversation",
        tags=["openai"],
        response_model=ResponseObject,
        responses=RESPONSES,
    )
    async def responses(body: ResponseRequest) -> Response:
        """Look passages up for the last message, and answer it from them; as OpenAI's interface, where fields agree.

        The text's `annotations` and the field `citations` are those of `/v1/chat/completions`. Nothing is kept: a response
        cannot be asked for again or gone on from. A field that would have no effect is refused with 400, by name.
        """
        async with refusing(config.request_timeout_s):
            require_model(body.model, answerer.model)
            return await _answer(body, answerer, config)


async def _answer(body: ResponseRequest, answerer: Answerer, config: ServeConfig) -> Response:
    request = to_question(
        body,
        body.input,
        body.sampled(body.max_output_tokens),
        config.max_question_chars,
        field="input",
        instructions=body.instructions or "",
    )
    head = ResponseHead(body)
    if not body.stream:
        served = await answerer.answer(request)
        headers = timing(retrieve=served.retrieve_s, generate=served.generate_s)
        return JSONResponse(response_of(head, served).model_dump(mode="json"), headers=headers)
    found = await answerer.find(request)
    form = ResponseEvents(head, numbered=answerer.numbered)
    headers = timing(retrieve=found.retrieve_s)
    return await open_stream(
        answerer.write(request, found), timeout_s=config.request_timeout_s, form=form, headers=headers
    )
