"""`POST /v1/chat/completions`. In: a conversation. Out: the answer to its last message, whole or as events."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from ragray.config import ServeConfig
from ragray.serve.access.served import timing
from ragray.serve.answerer import Answerer
from ragray.serve.failure import refusing
from ragray.serve.openai.chat_events import CHUNK_EXAMPLE, ChatEvents
from ragray.serve.openai.chat_request import ChatRequest
from ragray.serve.openai.chat_response import ChatCompletion, CompletionHead, completion
from ragray.serve.openai.conversation import to_question
from ragray.serve.openai.errors import OPENAI_ERRORS
from ragray.serve.openai.models import require_model
from ragray.serve.stream import open_stream
from ragray.serve.strict import invalid

RESPONSES = {
    200: {
        "description": "The answer, whole or (with `stream`) as events.",
        "content": {"text/event-stream": {"schema": {}, "example": CHUNK_EXAMPLE}},
    },
    **OPENAI_ERRORS,
}


def add_chat(app: APIRouter, answerer: Answerer, config: ServeConfig) -> None:
    """Add the route."""

    @app.post(
        "/v1/chat/completions",
        summary="Answer the last message of a conversation",
        tags=["openai"],
        response_model=ChatCompletion,
        responses=RESPONSES,
    )
    async def chat(body: ChatRequest) -> Response:
        """Look passages up for the last message, and answer it from them; as OpenAI's interface, where fields agree.

        `annotations` cover the answer with the passage that supports it best, or, where passages are numbered in the prompt and
        the answer cites them, each `[n]` with the passage of that number; `citations` list all that were read. A field
        that would have no effect is refused with 400, by name.
        """
        async with refusing(config.request_timeout_s):
            require_model(body.model, answerer.model)
            return await _answer(body, answerer, config)


async def _answer(body: ChatRequest, answerer: Answerer, config: ServeConfig) -> Response:
    if body.stream_options is not None and not body.stream:
        raise invalid(("stream_options",), "is only for stream=true", "invalid_value")
    request = to_question(body, body.messages, body.sampling, config.max_question_chars)
    head = CompletionHead(body.model)
    if not body.stream:
        served = await answerer.answer(request)
        headers = timing(retrieve=served.retrieve_s, generate=served.generate_s)
        return JSONResponse(completion(head, served).model_dump(mode="json"), headers=headers)
    found = await answerer.find(request)
    options = body.stream_options
    form = ChatEvents(head, include_usage=options is not None and options.include_usage, numbered=answerer.numbered)
    headers = timing(retrieve=found.retrieve_s)
    return await open_stream(
        answerer.write(request, found), timeout_s=config.request_timeout_s, form=form, headers=headers
    )
