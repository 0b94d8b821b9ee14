"""The service of `tests.serve.river`, for all tests of HTTP that change nothing of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.serve.river import make_index, river_client


@pytest.fixture(scope="session")
def river_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_index(tmp_path_factory.mktemp("rivers"))


@pytest.fixture(scope="module")
def river(river_index: Path) -> Iterator[TestClient]:
    with river_client(river_index) as client:
        yield client
