"""Connecting to Ray."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ragray.cluster.session import session, start_local, unusable
from ragray.errors import ClusterError, RagrayError
from tests.processes import descendants


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


JOINS = """
import sys
from ragray.cluster.session import session
from ragray.errors import ClusterError
for address in sys.argv[1:]:
    try:
        with session(address): print("joined")
    except ClusterError as err: print(err)
"""


def test_an_address_that_cannot_be_joined_is_an_error_of_one_line() -> None:
    """In a process of its own, which is connected to no cluster yet. A free port is refused before Ray is asked: Ray would wait."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
        addresses = ["nonsense", "no-such-host.invalid:6379", "http://127.0.0.1:1", nobody, f"ray://{nobody}"]
        done = subprocess.run([sys.executable, "-c", JOINS, *addresses], stdout=subprocess.PIPE, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.endswith("check --address and RAY_ADDRESS") for line in lines] == [True] * len(addresses)
    for line, address in zip(lines[-2:], addresses[-2:], strict=True):
        assert line.startswith(f"no Ray cluster answers at {address} (")


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


@pytest.mark.parametrize("program", ["autoscaler/_private/monitor.py", "log_monitor.py", "dashboard/dashboard.py"])
def test_a_cluster_of_our_own_has_no_process_for_what_nobody_sees(ray_session: None, program: str) -> None:
    assert descendants(os.getpid(), b"raylet")
    assert not descendants(os.getpid(), program.encode())


class Start:
    """Fails as often as it is told to, as Ray does where its own processes come up too late."""

    def __init__(self, failures: int, error: type[Exception] = Exception) -> None:
        self.failures, self.error, self.tried = failures, error, 0

    def __call__(self) -> None:
        self.tried += 1
        if self.tried <= self.failures:
            raise self.error("The current node timed out during startup.\nMore about it.")


def test_a_cluster_that_came_up_too_late_is_started_again() -> None:
    start = Start(failures=2)
    start_local(start)
    assert start.tried == 3


def test_what_an_attempt_left_running_is_ended_before_the_next() -> None:
    from ray._private import services

    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        assert [process.poll() for process in started] == [-signal.SIGKILL] * len(started)
        started.append(services.ConsolePopen(["sleep", "600"]))
        if len(started) == 1:
            raise Exception("The current node timed out during startup.")

    start_local(start)
    with started[1] as last:
        assert last.poll() is None
        last.kill()


def test_a_cluster_that_never_comes_up_is_an_error_of_one_line() -> None:
    with pytest.raises(
        RagrayError, match=r"^Ray did not start on this machine in 3 attempts \(The current node timed out"
    ):
        start_local(Start(failures=9))


def test_other_errors_of_a_start_are_not_tried_again() -> None:
    start = Start(failures=1, error=ValueError)
    with pytest.raises(ValueError, match="timed out"):
        start_local(start)
    assert start.tried == 1


def seen_by_a_task() -> str | None:
    import ray

    found: str | None = ray.get(ray.remote(lambda: os.environ.get("CUDA_VISIBLE_DEVICES")).remote())
    return found


def test_a_task_that_reserves_no_gpu_sees_none(ray_session: None) -> None:
    assert seen_by_a_task() == ""


def run(code: str, environment: dict[str, str]) -> list[str]:
    """Run Python in a process of its own, without any setting of Ray's in the environment but these; return what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", f"import os\n{code}"]
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.splitlines()


def test_who_joins_a_cluster_keeps_the_users_mode_of_authentication_and_hides_gpus_there(ray_session: None) -> None:
    import ray

    code = (
        "from ragray.cluster.session import session\n"
        "from tests.cluster.test_session import seen_by_a_task\n"
        "for mode in ({}, {'RAY_AUTH_MODE': 'disabled'}):\n"
        "    os.environ.update(mode)\n"
        "    with session():\n"
        "        print(os.environ.get('RAY_AUTH_MODE'))\n"
        "        print(repr(seen_by_a_task()))\n"
    )
    joined = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    assert run(code, joined) == ["None", "''", "disabled", "''"]


def test_a_cluster_of_our_own_writes_no_token_file_and_leaves_the_environment_as_it_was(tmp_path: Path) -> None:
    code = (
        "from ragray.cluster.session import HIDE_GPUS, LOCAL_ENVIRONMENT, session\n"
        "names = [*LOCAL_ENVIRONMENT, HIDE_GPUS, 'PYTHONPATH']\n"
        "before = [os.environ.get(name) for name in names]\n"
        "with session():\n"
        "    print(os.environ['RAY_AUTH_MODE'])\n"
        "print([os.environ.get(name) for name in names] == before)\n"
    )
    assert run(code, {"HOME": str(tmp_path)}) == ["disabled", "True"]
    assert not (tmp_path / ".ray").exists()
