"""A service for two teams: passages of each, a key for each, the fake encoder and generator."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi.testclient import TestClient

from ragray.config import Config, IndexConfig, ServeConfig
from ragray.embed.encoder import HashEncoder
from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.index.search.reader import IndexReader
from ragray.retrieve.retriever import LocalRetriever
from ragray.serve.access.keys import add_key
from ragray.serve.app import create_app
from ragray.serve.local import LocalAnswerer
from ragray.types import Passage
from tests import helpers

MODEL = "first-sentence"
FRUITS = ("apple", "pear", "plum", "fig")
PASSAGES = [
    Passage(
        f"{team}-{fruit}",
        f"The {fruit} of team {team} is stored in cellar {team}.",
        fruit.title(),
        team,
        {"team": team},
    )
    for team in ("red", "blue")
    for fruit in FRUITS
]
PUBLIC = Passage("public", "Fruit is stored in cellars.", "", "public")
"""A passage that has no team."""


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def make_index(folder: Path) -> Path:
    return helpers.index_of(folder, [*PASSAGES, PUBLIC], IndexConfig(lexical="english"))


def keys_of_teams(path: Path) -> dict[str, str]:
    """Write the file of keys: one for each team, one without a filter, one whose filter names a field that no passage has."""
    wheres = {"red": "team == red", "blue": "team == blue", "all": "", "nobody": "taem == red"}
    return {name: add_key(path, name, where=where) for name, where in wheres.items()}


@contextmanager
def client_of(index: Path, serve: ServeConfig | None = None, *, where: str = "") -> Iterator[TestClient]:
    """Serve the index in this process, with the keys that the settings name."""
    config = Config(serve=serve or ServeConfig())
    settings = config.retrieve.model_copy(update={"where": where})
    retriever = LocalRetriever(IndexReader.open(index), HashEncoder(64), settings)
    answerer = LocalAnswerer(
        retriever, FirstSentenceGenerator(), k=4, run="run-1", model=MODEL, with_keys=bool(config.serve.keys_file)
    )
    try:
        with TestClient(create_app(answerer, config.serve), raise_server_exceptions=False) as client:
            yield client
    finally:
        answerer.close()
