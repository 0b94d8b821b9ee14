"""Fixtures that several test modules share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragray.cluster.session import session
from tests import tiny


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
