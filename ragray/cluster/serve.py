"""Runs `serve` on Ray Serve. In: an index, a run, a configuration. Out: an HTTP service, until it is told to stop.

`serve` and `running` start a service from this process; `build` is what the configuration files in `serve_configs/`
name, for `serve deploy` to a cluster that stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ragray.cluster import service
from ragray.cluster.deployments import application, check_artifacts
from ragray.cluster.resources import Want, require
from ragray.cluster.session import session
from ragray.config import Config, ServeConfig, load_config
from ragray.errors import ConfigError, ServingError

if TYPE_CHECKING:
    from ray.serve import Application


def build(args: Mapping[str, str]) -> Application:
    """Make the application from the ``args`` of a Serve configuration file: `index`, perhaps `run` and `config` (YAML).

    Raises:
        ConfigError: an argument is unknown or missing, or the configuration is wrong.
        ArtifactError, EncoderMismatchError: index or run cannot be used, or not together.
    """
    for key in args:
        if key not in ("index", "run", "config"):
            raise ConfigError(f"args of the application: unknown key '{key}' (known: index, run, config)")
    if not args.get("index"):
        raise ConfigError("args of the application: no 'index', expected the folder of an index")
    index, run = Path(args["index"]), Path(args["run"]) if args.get("run") else None
    config = load_config(Path(args["config"]) if args.get("config") else None)
    name = check_artifacts(index, run)
    return application(str(index), str(run or ""), config, run_name=name)


def serve(index: Path, run: Path | None, config: Config, *, address: str | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM, then stop everything that was started (raises as `running` does)."""
    check_artifacts(index, run)
    _require_free_port_here(config.serve, address)
    with session(address), _sigterm_as_ctrl_c(), running(index, run, config, address=address) as url:
        print(banner(url, index, run), flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopping ...", flush=True)


@contextlib.contextmanager
def running(index: Path, run: Path | None, config: Config, *, address: str | None = None) -> Iterator[str]:
    """Serve for the length of the block; yields the base URL once the service answers.

    Raises:
        ArtifactError, EncoderMismatchError: index or run cannot be used, or not together.
        ServingError: the port is taken, Serve runs already, or a deployment cannot start (the message says of what).
    """
    name = check_artifacts(index, run)
    _require_free_port_here(config.serve, address)
    with session(address):
        require("serve", deployment_wants(config.serve), wait_s=config.cluster.wait_s)
        service.require_none()
        app = application(str(index.resolve()), str(run.resolve()) if run else "", config, run_name=name)
        try:
            service.start(app, config.serve)
            url = base_url(config.serve)
            service.await_answer(url)
            yield url
        finally:
            service.stop()


def deployment_wants(config: ServeConfig) -> list[Want]:
    """Return what the deployments of `application` reserve; Serve's own actors reserve nothing."""
    return [
        Want("Gateway", 1, (), cpus=0.1),
        Want("Retriever", config.retriever_replicas, ("serve.retriever_replicas",), cpus=0.5),
        Want("Generator", config.generator_replicas, ("serve.generator_replicas",), cpus=1),
    ]


def require_free_port(config: ServeConfig) -> None:
    """Raise `ServingError` unless the address can be listened on."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as err:
        other = config.port + 1 if config.port < 65535 else config.port - 1
        what = "is in use" if err.errno == errno.EADDRINUSE else f"cannot be listened on ({err.strerror or err})"
        raise ServingError(
            f"port {config.port} on {config.host} {what}; "
            f"stop what listens there or choose another with serve.port={other}"
        ) from err


def base_url(config: ServeConfig) -> str:
    """Return the URL under which this machine reaches the service."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::", "") else config.host
    return f"http://[{host}]:{config.port}" if ":" in host else f"http://{host}:{config.port}"


def banner(url: str, index: Path, run: Path | None) -> str:
    """Return what a person needs to use the service."""
    return f"""
ragray serves {index}{f" with the run {run}" if run else " with the base model"}

  ask       POST {url}/v1/answer
  look up   POST {url}/v1/search
  health    GET  {url}/healthz
  docs           {url}/docs

  curl {url}/v1/answer -H 'Content-Type: application/json' -d '{{"question": "..."}}'

Ctrl-C stops it.
"""


def _require_free_port_here(config: ServeConfig, address: str | None) -> None:
    """Look at the port, unless Ray, and with it the HTTP proxy, may run on another machine."""
    if not (address or os.environ.get("RAY_ADDRESS")):
        require_free_port(config)


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does; once Ray is connected, it would abort the process instead."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
