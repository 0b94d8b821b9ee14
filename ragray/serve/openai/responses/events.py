"""Responses as events. In: an answer as it is written. Out: OpenAI's events of a response, numbered, the last with the whole."""

from __future__ import annotations

from itertools import count

from ragray.generate.orchestrator import ServedAnswer
from ragray.serve.failure import Failure
from ragray.serve.openai.errors import OpenAIErrorDetail, OpenAIErrorResponse
from ragray.serve.openai.markers import WithoutMarkers
from ragray.serve.openai.responses.response import (
    OutputMessage,
    OutputText,
    ResponseHead,
    ResponseObject,
    TextAnnotation,
    output_text,
)
from ragray.serve.schema import Wire
from ragray.serve.stream import event

EVENTS_EXAMPLE = (
    'event: response.output_text.delta\ndata: {"type": "response.output_text.delta", "sequence_number": 4, '
    '"item_id": "msg_5b1c", "output_index": 0, "content_index": 0, "delta": "the Se", "logprobs": []}\n\n'
)


class ResponseEvent(Wire):
    """An event; which fields it has is said by its type."""

    type: str
    sequence_number: int
    response: ResponseObject | None = None
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    item: OutputMessage | None = None
    part: OutputText | None = None
    delta: str | None = None
    text: str | None = None
    logprobs: tuple[()] | None = None
    annotation_index: int | None = None
    annotation: TextAnnotation | None = None
    code: str | None = None
    message: str | None = None
    param: str | None = None
    error: OpenAIErrorDetail | None = None


class ResponseEvents:
    """The events of one answer, whose sources are annotated when it is whole."""

    def __init__(self, head: ResponseHead, *, numbered: bool) -> None:
        self._head = head
        self._numbers = count()
        self._answer = WithoutMarkers(numbered=numbered)
        self._place = {"item_id": head.message_id, "output_index": 0, "content_index": 0}

    def begin(self) -> str:
        """Return the events of a response, a message and a text that begin."""
        begun = self._head.begun()
        return (
            self._event("response.created", response=begun)
            + self._event("response.in_progress", response=begun)
            + self._event("response.output_item.added", output_index=0, item=self._head.message(None))
            + self._event("response.content_part.added", **self._place, part=output_text(""))
        )

    def piece(self, text: str) -> str:
        """Return the event of a text that came to the answer; "" while it is held back."""
        shown = self._answer.push(text)
        return self._delta(shown) if shown else ""

    def end(self, served: ServedAnswer) -> str:
        """Return the events with what was held back, of the annotations, and of all that is whole now."""
        rest = self._answer.close()
        parts = [self._delta(rest)] if rest else []
        text = output_text(self._answer.shown, served)
        for index, annotation in enumerate(text.annotations):
            noted = {"annotation_index": index, "annotation": annotation}
            parts.append(self._event("response.output_text.annotation.added", **self._place, **noted))
        ended = self._head.ended(text, served)
        parts.append(self._event("response.output_text.done", **self._place, text=text.text, logprobs=()))
        parts.append(self._event("response.content_part.done", **self._place, part=text))
        parts.append(self._event("response.output_item.done", output_index=0, item=ended.output[0]))
        return "".join([*parts, self._event(f"response.{ended.status}", response=ended)])

    def error(self, failure: Failure) -> str:
        """Return the error: as OpenAI's documentation has it, and under `error`, by which its clients raise it."""
        error = OpenAIErrorResponse.of(failure).error
        return self._event("error", code=error.code, message=error.message, param=error.param, error=error)

    def _delta(self, text: str) -> str:
        return self._event("response.output_text.delta", **self._place, delta=text, logprobs=())

    def _event(self, kind: str, **fields: object) -> str:
        data = ResponseEvent.model_validate({"type": kind, "sequence_number": next(self._numbers), **fields})
        return event(data, name=kind, only_set=True)
