"""A small service for the tests of HTTP: three passages, the fake encoder and generator, real search, no files of models."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi.testclient import TestClient

from ragray.config import Config, IndexConfig, ServeConfig
from ragray.embed.encoder import HashEncoder
from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.generate.generator import Generator
from ragray.index.search.reader import IndexReader
from ragray.retrieve.rerank import Reranker
from ragray.retrieve.retriever import LocalRetriever
from ragray.serve.app import create_app
from ragray.serve.local import LocalAnswerer
from ragray.types import Passage
from tests import helpers

MODEL = "first-sentence"
SNAPSHOT = "000001-test"
PASSAGES = [
    Passage("elbe#0", "The Elbe [3] flows through Hamburg. It rises in Bohemia.", "Elbe", "elbe", {"lang": "en"}),
    Passage(
        "isar#0",
        "Die Isar fließt durch München.",
        "Isar",
        "isar",
        {"lang": "de", "url": "https://example.org/isar", "length": "292"},
    ),
    Passage("owl#0", "Owls hunt at night.", "", "owl", {"lang": "en"}),
]


def make_index(folder: Path) -> Path:
    """Write the index of the passages, with postings, so that every mode works."""
    return helpers.index_of(folder, PASSAGES, IndexConfig(lexical="english"))


@contextmanager
def river_client(
    index: Path,
    *,
    generator: Generator | None = None,
    config: Config | None = None,
    reranker: Reranker | None = None,
    numbered: bool = False,
) -> Iterator[TestClient]:
    """Serve the index in this process."""
    config = config or Config(serve=ServeConfig(max_question_chars=200))
    retriever = LocalRetriever(IndexReader.open(index), HashEncoder(64), config.retrieve, reranker)
    names = {"run": "run-1", "model": MODEL}
    answerer = LocalAnswerer(retriever, generator or FirstSentenceGenerator(), k=2, numbered=numbered, **names)
    try:
        with TestClient(create_app(answerer, config.serve), raise_server_exceptions=False) as client:
            yield client
    finally:
        answerer.close()
