"""A connection to Ray. In: an address, or nothing for a cluster on this machine. Out: a connected process that leaves nothing behind."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragray.errors import ClusterError, first_line

NAMESPACE = "ragray"
LOCAL_OBJECT_STORE_BYTES = 256 << 20
START_ATTEMPTS = 3
"""A local cluster is started so often at most: Ray gives up where the machine is so busy that a part takes over 15 s to come."""

KNOCK_TIMEOUT_S = 10.0
LOCAL_LOGICAL_CPUS = 8
"""A local cluster has at least so many logical CPUs: retriever actors, workers and drivers share the real ones by time."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "ragray.serve.edge:middlewares",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""Set before Ray is imported, unless the user has set them: no telemetry, prompt reports, a proxy that a busy machine starts slowly is
not given up after 3 x 5 s, and SIGTERM is left to Python, where Ray's C++ core would print its stack and abort."""

LOCAL_ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""Set while a cluster of our own runs on this machine, unless the user has set it. Where the mode is unset, Ray 2.60 protects a cluster
that `ray.init` starts, and writes the token to ~/.ray; a cluster that is joined has a mode of its own, which the user's environment
follows. Nobody takes this machine away with a notice, which every start of workers would start an actor to wait for."""

HIDE_GPUS = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
"""Variable of a worker process: with 1, Ray shows no GPU to an actor or task that reserves none. Without it, since Ray 2.60, each of
these sees all GPUs of its node, and all of them would take the first."""


def prepare_environment() -> None:
    """Fill in the environment variables that Ray reads when it is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def session(address: str | None = None) -> Iterator[None]:
    """Connect to Ray for the length of the block.

    Joins the connection that this process has, else the cluster at ``address`` or ``RAY_ADDRESS``, else starts one on this
    machine that ends with the block. A cluster that was joined is left as it was.

    Raises:
        ClusterError: no cluster answers at the address, it cannot be used, or none could be started here.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    with _environment({} if address else _unset(LOCAL_ENVIRONMENT)):
        _connect(address)
        for name in ("ray.data", "ray.train", "ray.serve"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the length of the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _unset(values: Mapping[str, str]) -> dict[str, str]:
    """Return those of these environment variables that the user has not set."""
    return {name: value for name, value in values.items() if name not in os.environ}


def _connect(address: str | None) -> None:
    import ray

    try:
        if address:
            _knock(address)
        with _stderr_closed(), _keeping_our_handler():
            if not address:
                start_local()
                return
            ray.init(
                address=address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": _worker_environment()},
            )
    except Exception as err:
        if not address:
            raise
        raise unusable(address, err) from err


def _worker_environment() -> dict[str, str]:
    """Return what our worker processes need on any node; a variable that the user has set reaches them in the user's own way."""
    return {} if HIDE_GPUS in os.environ else {HIDE_GPUS: "1"}


def unusable(address: str, error: Exception) -> ClusterError:
    """Return the error that says in one line why a cluster cannot be joined."""
    if isinstance(error, OSError):
        return ClusterError(
            f"no Ray cluster answers at {address} ({first_line(error)}); check --address and RAY_ADDRESS"
        )
    reason = first_line(error)
    if reason.startswith("Version mismatch"):
        reason, advice = " ".join(str(error).split()), "install the cluster's versions of Ray and Python here"
    elif "auth" in f"{type(error).__name__} {reason}".lower():
        advice = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on the cluster"
    else:
        advice = "check --address and RAY_ADDRESS"
    return ClusterError(f"the Ray cluster at {address} cannot be joined ({reason}); {advice}")


@contextlib.contextmanager
def _keeping_our_handler() -> Iterator[None]:
    """Keep the handler of SIGTERM that was set in Python, if there was one.

    Ray sets its own, two in Python while it starts and one in C++, which ends the process with code 15 or C++ frames.
    """
    from ray._private import utils

    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    set_handler = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda _: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_handler
        signal.signal(signal.SIGTERM, handler)


def has_cluster(address: str | None = None) -> bool:
    """Return whether a `session` would join a cluster, not start one."""
    ray = sys.modules.get("ray")
    return bool(address or os.environ.get("RAY_ADDRESS") or (ray and ray.is_initialized()))


def _knock(address: str) -> None:
    """Raise `OSError` at once where nothing listens; Ray itself would go on trying for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK_TIMEOUT_S).close()


def start_local(start: Callable[[], None] | None = None) -> None:
    """Start a cluster on this machine, or do what is given as ``start``; again, where Ray gives up because the machine is busy.

    Raises:
        ClusterError: Ray gave up `START_ATTEMPTS` times.
    """
    for attempt in range(1, START_ATTEMPTS + 1):
        environment = {"PYTHONPATH": _python_path(), **_worker_environment()}
        with _small_node(), _out_of_our_group() as started, _environment(environment):
            try:
                (start or _init_local)()
                return
            except Exception as err:
                _kill(started)
                if type(err) is not Exception:  # what Ray raises where a process of its own did not come up in time
                    raise
                if attempt == START_ATTEMPTS:
                    raise ClusterError(
                        f"Ray did not start on this machine in {attempt} attempts ({first_line(err)}); "
                        "try again when it is less busy, or join a cluster with --address; "
                        "Ray's own logs are in /tmp/ray/session_latest/logs"
                    ) from err


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill what an attempt to start Ray left running, which would take CPU time from the next."""
    for process in processes:
        process.kill()
        process.wait()


def _init_local() -> None:
    import ray

    ray.init(
        address="local",  # never one that happens to run on this machine
        num_cpus=max(LOCAL_LOGICAL_CPUS, os.cpu_count() or 1),
        object_store_memory=LOCAL_OBJECT_STORE_BYTES,
        namespace=NAMESPACE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )


@contextlib.contextmanager
def _small_node() -> Iterator[None]:
    """Start Ray without the processes that only an autoscaling cluster, a dashboard or logs in the terminal need.

    `ray.init` offers no choice; each costs more than a second of CPU time, and it waits for the dashboard's server even where
    that is to serve nothing. The node's agent listens anywhere: two clusters on one machine want the same port, and the second
    one tries again for 3 s, which on a busy machine is enough for Ray to give it up.
    """
    from ray._private import parameter, services

    params, start_api_server = parameter.RayParams, services.start_api_server
    parameter.RayParams = functools.partial(
        params, dashboard_agent_listen_port=0, no_monitor=True, include_log_monitor=False
    )
    services.start_api_server = lambda *_, **__: ("", None)
    try:
        yield
    finally:
        parameter.RayParams, services.start_api_server = params, start_api_server


@contextlib.contextmanager
def _out_of_our_group() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start Ray's processes in a session of their own: a signal to our process group, as a terminal sends it, is for us alone.

    They end with this process all the same where the kernel kills them once it is gone, which Linux does. Yields them.
    """
    from ray._private import services, utils

    started: list[subprocess.Popen[bytes]] = []
    if not utils.detect_fate_sharing_support():
        yield started
        return
    popen = services.ConsolePopen

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*args, start_new_session=True, **options))
        return started[-1]

    services.ConsolePopen = start
    try:
        yield started
    finally:
        services.ConsolePopen = popen


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    """Keep what Ray's C++ core writes past Python's logging, its own log level for instance, off the terminal."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def _python_path() -> str:
    """Let workers import ragray from where this process did, installed or not."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
