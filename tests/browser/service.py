"""What the browser talks to. Out: a service of the sample in two languages, found by words, with a generator that writes slowly."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ragray import sample
from ragray.config import Config, IndexConfig, RetrieveConfig
from ragray.embed.encoder import HashEncoder
from ragray.errors import OverloadedError
from ragray.generate.engine import Generation, Piece, Submission, Usage
from ragray.generate.engines.fake import FirstSentenceGenerator, FirstSentenceRunner
from ragray.index.search.reader import IndexReader
from ragray.retrieve.retriever import LocalRetriever
from ragray.serve.app import create_app
from ragray.serve.local import LocalAnswerer
from ragray.types import Passage
from tests import helpers
from tests.serve.online import listening

STEP_S = 0.08
BUSY = "busy?"
"""The question that is answered as if too many were waiting."""

ODD = (
    Passage(
        "nile#0",
        "نهر النيل هو أطول أنهار أفريقيا. يصب في البحر المتوسط.",
        "نهر النيل",
        "nile",
        {"url": "https://example.org/nile"},
    ),
    Passage(
        "markup#0",
        "<img src=x onerror=alert(1)> stays a text.",
        "<b>Markup</b>",
        "markup",
        {"url": "javascript:alert(1)"},
    ),
)
"""Passages that are hard to show: from right to left, and with markup in every field."""


class SlowGenerator(FirstSentenceGenerator):
    """Copies the first sentences of the best passage, a little at a time."""

    def check(self, question: str, instruction: str = "") -> None:
        if question == BUSY:
            raise OverloadedError("64 requests are waiting already; try again in a second")

    def open_runner(self) -> FirstSentenceRunner:
        return SlowRunner()


class SlowRunner(FirstSentenceRunner):
    def add(self, requests: dict[int, Submission]) -> dict[int, Exception]:
        for key, submission in requests.items():
            hits = submission.request.hits
            text = "".join(re.findall(r".+?[.。]\s*", hits[0].passage.text)[:2]).strip() if hits else "I do not know."
            weights = _shares([hit.score for hit in hits])
            self._rest[key] = re.findall(r"\s*[\u3000-\u9fff]{1,2}|\s*[^\s\u3000-\u9fff]+", text)
            self._whole[key] = Generation(text, weights, usage=Usage(40 * len(hits) + 12, len(self._rest[key])))
        return {}

    def step(self) -> list[tuple[int, Piece]]:
        time.sleep(STEP_S)
        return super().step()


def _shares(scores: list[float]) -> tuple[float, ...]:
    total = sum(score**3 for score in scores)
    return tuple(score**3 / total for score in scores)


def passages() -> list[Passage]:
    """The sample's passages, each whole, and the odd ones."""
    lines = [line for path in (sample.CORPUS, sample.CORPUS_ZH) for line in path.read_text("utf-8").splitlines()]
    records = [json.loads(line) for line in lines]
    return [Passage(f"{each['id']}#0", each["text"], each["title"], each["id"]) for each in records] + list(ODD)


@contextmanager
def running(folder: Path, port: int) -> Iterator[str]:
    """Serve on a port of this machine; yields the address."""
    index = helpers.index_of(folder, passages(), IndexConfig(lexical="english"))
    config = Config(retrieve=RetrieveConfig(mode="lexical", k=3))
    retriever = LocalRetriever(IndexReader.open(index), HashEncoder(64), config.retrieve)
    answerer = LocalAnswerer(retriever, SlowGenerator(), k=3, run="run-9c41", model="slow")
    app = create_app(answerer, config.serve)
    try:
        with listening(app, port) as address:
            yield f"{address}/"
    finally:
        answerer.close()
