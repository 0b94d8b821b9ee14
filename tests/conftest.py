"""Fixtures that several test modules share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragray.cluster.session import session
from ragray.config import EncoderConfig
from tests import helpers, tiny


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray cluster on this machine for all tests that need one."""
    os.environ.pop("RAY_ADDRESS", None)
    with session():
        yield


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder-only generator of random weights."""
    return tiny.save_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="session")
def tiny_encoder_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-decoder generator of random weights."""
    return tiny.save_encoder_decoder(tmp_path_factory.mktemp("encoder-decoder"))


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder of random weights."""
    return tiny.save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def tiny_encoder_index(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 40 passages, made with the tiny encoder."""
    folder = tmp_path_factory.mktemp("tiny-index")
    corpus = helpers.write_corpus(folder / "corpus", helpers.some_passages(40))
    config = EncoderConfig(model=str(tiny_encoder), max_length=64)
    embeddings = helpers.write_embeddings(folder / "embeddings", corpus, config=config)
    return helpers.write_index(folder / "index", embeddings, corpus)


@pytest.fixture(scope="session")
def hash_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 40 passages, made with the fake encoder `hash:64`."""
    return helpers.index_of(tmp_path_factory.mktemp("hash-index"), helpers.some_passages(40))
