"""Connecting to Ray."""

import socket
from time import monotonic

import pytest

from ragray.cluster import session as module
from ragray.cluster.session import session, unusable
from ragray.errors import ClusterError, RagrayError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError(
                "Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1\n"
                "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.4\n"
            ),
            "the Ray cluster at head:6379 cannot be joined (Version mismatch: The cluster was started with: Ray: 2.9.0 Python: "
            "3.10.1 This process on node 10.0.0.1 was started with: Ray: 2.60.0 Python: 3.11.4); install the cluster's versions",
        ),
        (ConnectionError("refused"), "no Ray cluster answers at head:6379 (refused); check --address and RAY_ADDRESS"),
        (
            RuntimeError("Unauthorized: Missing authentication token\nhelp"),
            "the Ray cluster at head:6379 cannot be joined (Una",
        ),
        (
            ValueError("Malformed address: x"),
            "the Ray cluster at head:6379 cannot be joined (Malformed address: x); check",
        ),
    ],
    ids=["another version", "nobody", "token", "malformed"],
)
def test_why_a_cluster_cannot_be_joined_is_one_line(error: Exception, message: str) -> None:
    found = unusable("head:6379", error)
    assert type(found) is ClusterError and str(found).startswith(message) and "\n" not in str(found)


@pytest.mark.parametrize("address", ["nonsense", "no-such-host.invalid:6379", "http://127.0.0.1:1"])
def test_an_address_that_is_none_is_an_error_of_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ClusterError, match=r"^[^\n]*check --address and RAY_ADDRESS$"), session(address):
        pass


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


def test_a_second_cluster_on_the_machine_does_not_want_the_port_of_the_first(ray_session: None) -> None:
    from ray._private import worker
    from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT

    assert worker._global_node.dashboard_agent_listen_port not in (0, DEFAULT_DASHBOARD_AGENT_LISTEN_PORT)


class Start:
    """Fails as often as it is told to, as Ray does where its own processes come up too late."""

    def __init__(self, failures: int, error: type[Exception] = Exception) -> None:
        self.failures, self.error, self.tried = failures, error, 0

    def __call__(self) -> None:
        self.tried += 1
        if self.tried <= self.failures:
            raise self.error("The current node timed out during startup.\nMore about it.")


def test_a_cluster_that_came_up_too_late_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Start(failures=2)
    monkeypatch.setattr(module, "_init_local", start)
    module._start_local()
    assert start.tried == 3


def test_a_cluster_that_never_comes_up_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_init_local", Start(failures=9))
    with pytest.raises(
        RagrayError, match=r"^Ray did not start on this machine in 3 attempts \(The current node timed out"
    ):
        module._start_local()


def test_other_errors_of_a_start_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Start(failures=1, error=ValueError)
    monkeypatch.setattr(module, "_init_local", start)
    with pytest.raises(ValueError, match="timed out"):
        module._start_local()
    assert start.tried == 1
