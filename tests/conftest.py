"""Fixtures that several test modules share."""

import os
from collections.abc import Iterator

import pytest

from ragray.cluster.session import session


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray cluster on this machine for all tests that need one."""
    os.environ.pop("RAY_ADDRESS", None)
    with session():
        yield
