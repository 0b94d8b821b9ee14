"""The service of two teams, for all tests that change nothing of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from ragray.config import ServeConfig
from tests.serve.access.teams import client_of, keys_of_teams, make_index


@pytest.fixture(scope="session")
def teams_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_index(tmp_path_factory.mktemp("teams"))


@pytest.fixture(scope="session")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="session")
def secrets(keys_file: Path) -> dict[str, str]:
    """The key of each name."""
    return keys_of_teams(keys_file)


@pytest.fixture(scope="module")
def teams(teams_index: Path, keys_file: Path, secrets: dict[str, str]) -> Iterator[TestClient]:
    with client_of(teams_index, ServeConfig(keys_file=str(keys_file), max_body_bytes=50_000)) as client:
        yield client
