"""Connecting to Ray."""

import socket
from time import monotonic

import pytest

from ragray.cluster.session import session
from ragray.errors import RagrayError


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_refused_at_once(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{unused.getsockname()[1]}"
        started = monotonic()
        with (
            pytest.raises(RagrayError, match=r"no Ray cluster answers at .*check --address and RAY_ADDRESS"),
            session(address),
        ):
            pass
        assert monotonic() - started < 30


def test_a_session_within_a_session_joins_it(ray_session: None) -> None:
    import ray

    before = ray.get_runtime_context().get_job_id()
    with session():
        assert ray.get_runtime_context().get_job_id() == before
    assert ray.is_initialized()
