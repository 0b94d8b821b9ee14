"""What flows between the stages: documents, passages, hits, examples, answers. Plain frozen data, no behaviour beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]
"""Why an answer ends: the generator wrote its end token, or the answer was as long as it may be."""

Metadata = Mapping[str, str | tuple[str, ...]]
"""Free-form facts about a document that are carried through to every passage of it; a tuple holds several values."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text as its source holds it, before cleaning and splitting."""

    id: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document, short enough to be encoded and to stand in a prompt."""

    id: str
    text: str
    title: str = ""
    document_id: str = ""
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a retriever returned.

    ``score`` is what it was ranked by: inner product, BM25, fused or a reranker's logit, by the settings of retrieval; larger is
    better. ``dense`` is the inner product of the question's vector and the passage's, whatever found the passage; None where no
    question encoder was loaded.
    """

    passage: Passage
    score: float
    dense: float | None = None


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """The passages of one query, best first, and the name of the one snapshot that they were found in."""

    snapshot: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its accepted answers and the passages (or documents) that hold them.

    ``place`` says for messages where it was read, such as ``train.jsonl:8``; two examples that differ in nothing else are equal.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    gold_ids: tuple[str, ...] = ()
    place: str = field(default="", compare=False)

    @property
    def content(self) -> dict[str, str | tuple[str, ...]]:
        """The example without its place: what a fingerprint is made of."""
        return {"id": self.id, "question": self.question, "answers": self.answers, "gold_ids": self.gold_ids}


@dataclass(frozen=True, slots=True)
class Citation:
    """A source of an answer: the hit and its share in the answer (see `ragray.generate.strategy`); shares sum to one."""

    hit: Hit
    weight: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated answer with its sources, best supported first, the snapshot it was answered from, and why it ends.

    ``numbered``: ``[n]`` in the text names the n-th source; the sources stand in the order of the prompt then.
    """

    question: str
    text: str
    citations: tuple[Citation, ...] = ()
    log_prob: float = 0.0
    snapshot: str = ""
    finish_reason: FinishReason = "stop"
    numbered: bool = False
