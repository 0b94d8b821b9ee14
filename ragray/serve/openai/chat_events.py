"""Chat completions as events. In: an answer as it is written. Out: `data:` lines with chunks, then `data: [DONE]`, or an error."""

from __future__ import annotations

from typing import Literal

from ragray.generate.orchestrator import ServedAnswer
from ragray.serve.failure import Failure
from ragray.serve.openai.chat_response import (
    ChatChunk,
    ChatUsage,
    ChunkChoice,
    ChunkDelta,
    CompletionHead,
    annotations_of,
    citations,
)
from ragray.serve.openai.errors import OpenAIErrorResponse
from ragray.serve.openai.markers import WithoutMarkers
from ragray.serve.stream import event

DONE = "data: [DONE]\n\n"

CHUNK_EXAMPLE = (
    'data: {"id": "chatcmpl-5b1c", "object": "chat.completion.chunk", ..., "choices": [{"index": 0, "delta": '
    '{"content": "the Se"}, ...}]}\n\n' + DONE
)


class ChatEvents:
    """The events of one answer. The last chunk of the answer has the citations; ``include_usage`` adds one with the tokens."""

    def __init__(self, head: CompletionHead, *, include_usage: bool, numbered: bool) -> None:
        self._head = head
        self._include_usage = include_usage
        self._answer = WithoutMarkers(numbered=numbered)

    def begin(self) -> str:
        """Return the chunk that says who speaks."""
        return self._chunk(ChunkDelta(role="assistant", content=""))

    def piece(self, text: str) -> str:
        """Return the chunk of a text that came to the answer; "" while it is held back."""
        shown = self._answer.push(text)
        return self._chunk(ChunkDelta(content=shown)) if shown else ""

    def end(self, served: ServedAnswer) -> str:
        """Return the chunks with what was held back, the annotations, the reason of the end and the citations."""
        rest = self._answer.close()
        parts = [self._chunk(ChunkDelta(content=rest))] if rest else []
        if noted := annotations_of(self._answer.shown, served):
            parts.append(self._chunk(ChunkDelta(annotations=noted)))
        parts.append(self._chunk(ChunkDelta(), finish=served.answer.finish_reason, last=served))
        if self._include_usage:
            parts.append(self._write(self._parts((), ChatUsage.of(served.usage))))
        return "".join([*parts, DONE])

    def error(self, failure: Failure) -> str:
        """Return the error, which clients raise."""
        return event(OpenAIErrorResponse.of(failure))

    def _chunk(
        self,
        delta: ChunkDelta,
        finish: Literal["stop", "length"] | None = None,
        last: ServedAnswer | None = None,
    ) -> str:
        chunk = self._parts((ChunkChoice(index=0, delta=delta, logprobs=None, finish_reason=finish),), None)
        return self._write(chunk if last is None else chunk.model_copy(update={"citations": citations(last)}))

    def _parts(self, choices: tuple[ChunkChoice, ...], usage: ChatUsage | None) -> ChatChunk:
        head = self._head
        chunk = ChatChunk(
            id=head.id, object="chat.completion.chunk", created=head.created, model=head.model, choices=choices
        )
        return chunk.model_copy(update={"usage": usage}) if self._include_usage else chunk

    def _write(self, chunk: ChatChunk) -> str:
        return event(chunk, only_set=True)
