"""Chat completions as data. In: a served answer. Out: the completion, or its chunks, with citations where clients look for them."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from pydantic import Field

from ragray.generate.answer.markers import cited
from ragray.generate.engine import Usage
from ragray.generate.orchestrator import ServedAnswer
from ragray.serve.openai.markers import without_markers
from ragray.serve.schema import Wire
from ragray.types import Citation, Passage


class UrlCitation(Wire):
    """A source of a part of the answer."""

    start_index: int = Field(description="where the part begins, in characters")
    end_index: int = Field(description="where it ends")
    title: str = Field(description="title of the document")
    url: str = Field(description="the passage's `url` or `source` among its metadata, else a URN of its id")


class Annotation(Wire):
    """A note on a part of the answer."""

    type: Literal["url_citation"]
    url_citation: UrlCitation


class ChatCitation(Wire):
    """A passage that the answer was written from; a field of ragray."""

    number: int = Field(
        description="its `[n]` in the answer; without such, 1 for the passage that supports it best, then 2 and so on"
    )
    id: str = Field(description="id of the passage")
    title: str = Field(description="title of its document, or empty")
    url: str = Field(description="as in the annotations")
    text: str = Field(description="the passage itself")
    score: float = Field(description="inner product, BM25 or fused score; larger is better")
    weight: float = Field(
        description="its share in the answer: p(passage | question, answer), or, cited by `[n]`, equal shares"
    )

    @classmethod
    def of(cls, number: int, citation: Citation) -> ChatCitation:
        """Write a citation as JSON has it."""
        passage = citation.hit.passage
        return cls(
            number=number,
            id=passage.id,
            title=passage.title,
            url=url_of(passage),
            text=passage.text,
            score=citation.hit.score,
            weight=citation.weight,
        )


class ChatUsage(Wire):
    """Tokens; the prompt's are those of all prompts of the question, one for each passage."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> ChatUsage:
        """Write a usage as JSON has it."""
        total = usage.prompt_tokens + usage.new_tokens
        return cls(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.new_tokens, total_tokens=total)


class AnswerMessage(Wire):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None
    annotations: tuple[Annotation, ...]


class Choice(Wire):
    """The one answer of a completion."""

    index: int
    message: AnswerMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(Wire):
    """A whole answer."""

    id: str = Field(examples=["chatcmpl-5b1c"])
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: ChatUsage
    citations: tuple[ChatCitation, ...] = Field(description="the passages read, by their numbers")


class ChunkDelta(Wire):
    """What comes to the answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    annotations: tuple[Annotation, ...] | None = None


class ChunkChoice(Wire):
    """The one answer of a chunk."""

    index: int
    delta: ChunkDelta
    logprobs: None
    finish_reason: Literal["stop", "length"] | None


class ChatChunk(Wire):
    """A part of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: ChatUsage | None = None
    citations: tuple[ChatCitation, ...] | None = None


@dataclass(frozen=True, slots=True)
class CompletionHead:
    """What every part of an answer repeats: the model, an id of its own, and when it began (seconds since 1970)."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


def completion(head: CompletionHead, served: ServedAnswer) -> ChatCompletion:
    """Write a whole answer as JSON has it."""
    answer = served.answer
    text = answer.text if answer.numbered else without_markers(answer.text)
    message = AnswerMessage(role="assistant", content=text, refusal=None, annotations=annotations_of(text, served))
    choice = Choice(index=0, message=message, logprobs=None, finish_reason=answer.finish_reason)
    return ChatCompletion(
        id=head.id,
        object="chat.completion",
        created=head.created,
        model=head.model,
        choices=(choice,),
        usage=ChatUsage.of(served.usage),
        citations=citations(served),
    )


def annotations_of(text: str, served: ServedAnswer) -> tuple[Annotation, ...]:
    """Return an annotation for every number that the text cites by.

    Where there is none, it is one that covers the answer with the passage of the largest share; none without passages or text.
    """
    answer = served.answer
    if not text or not answer.citations:
        return ()
    if answer.numbered and (named := tuple(cited(text, len(answer.citations)))):
        return tuple(_annotation(answer.citations[number - 1], start, end) for number, start, end in named)
    return (_annotation(max(answer.citations, key=lambda citation: citation.weight), 0, len(text)),)


def _annotation(citation: Citation, start: int, end: int) -> Annotation:
    passage = citation.hit.passage
    noted = UrlCitation(start_index=start, end_index=end, title=passage.title, url=url_of(passage))
    return Annotation(type="url_citation", url_citation=noted)


def citations(served: ServedAnswer) -> tuple[ChatCitation, ...]:
    """Return the passages of an answer, as they are numbered, else best supporting first."""
    return tuple(ChatCitation.of(number, citation) for number, citation in enumerate(served.answer.citations, start=1))


def url_of(passage: Passage) -> str:
    """Return where a passage can be read: what its metadata say, else a name of its own."""
    known = passage.metadata.get("url") or passage.metadata.get("source")
    if isinstance(known, tuple):  # several of them: the first
        known = known[0]
    return known or f"urn:ragray:passage:{quote(passage.id, safe='')}"
