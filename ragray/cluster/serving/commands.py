"""Runs `serve` on Ray Serve. In: an index, a run, a configuration. Out: an HTTP service, until it is told to stop.

`serve` and `running` start a service from this process; `build` is what the configuration files in `serve_configs/`
name, for `serve deploy` to a cluster that stays.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ragray.cluster.resources import Want, require
from ragray.cluster.retrieval.start import pool_want
from ragray.cluster.serving import service
from ragray.cluster.serving.scaling import GATEWAY_CPUS, RETRIEVER_CPUS, generator_copies, retriever_copies
from ragray.cluster.serving.stop import Stop
from ragray.cluster.session import has_cluster, session
from ragray.config import Config, ServeConfig, load_config
from ragray.embed.load import engine_of_questions
from ragray.errors import ConfigError
from ragray.index.store.snapshot import Snapshot, read_snapshot
from ragray.serve.access.settings import checked_access
from ragray.serve.placeholder import Placeholder
from ragray.serve.port import require_free_port

if TYPE_CHECKING:
    from ray.serve import Application

POLL_S = 0.1
WAKE_S = 0.2
SETTLE_S = 1.0
"""Seconds for the last bytes of an answer to pass from the Gateway through Ray's proxy to the client."""

HELD = "stopping: {} held while the models load, to be answered first; Ctrl-C again drops them"

SHARES_NO_PORT = (("SERVE_SOCKET_REUSE_PORT_ENABLED", "0"), ("RAY_SERVE_ENABLE_HA_PROXY", "1"))
"""Environment variables of Ray, and the values with which its proxy does not share the port."""


def build(args: Mapping[str, str]) -> Application:
    """Make the application from the ``args`` of a Serve configuration file: `index`, perhaps `run` and `config` (YAML).

    Raises:
        ConfigError: an argument is unknown or missing, the configuration is wrong, or others would reach a service without keys.
        ArtifactError, EncoderMismatchError: index or run cannot be used, or not together.
    """
    for key in args:
        if key not in ("index", "run", "config"):
            raise ConfigError(f"args of the application: unknown key '{key}' (known: index, run, config)")
    if not args.get("index"):
        raise ConfigError("args of the application: no 'index', expected the folder of an index")
    from ragray.cluster.serving.deployments import application, check_artifacts

    index, run = Path(args["index"]), Path(args["run"]) if args.get("run") else None
    config = _checked(load_config(Path(args["config"]) if args.get("config") else None), service.listening_host())
    name = check_artifacts(index, run)
    return application(str(index), str(run or ""), config, run_name=name)


def serve(index: Path, run: Path | None, config: Config, *, address: str | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM, finish the answers in flight, stop everything that was started.

    Raises:
        SystemExit: a signal ended it; 130 after Ctrl-C, 143 after SIGTERM.
        RagrayError: as `running`.
    """
    with Stop(config.serve.drain_timeout_s, config.serve.request_timeout_s) as stop:
        with running(index, run, config, address=address, stop=stop) as url:
            device = "auto" if config.serve.retriever_gpus else "cpu"
            engine = engine_of_questions(config.serve.question_engine, device)
            print(banner(url, index, run, engine=engine, with_keys=bool(config.serve.keys_file)), flush=True)
            while not stop.asked.wait(WAKE_S):
                pass  # a signal that another thread is interrupted by is handled when this one wakes up
        raise SystemExit(stop.exit_code)


@contextlib.contextmanager
def running(
    index: Path, run: Path | None, config: Config, *, address: str | None = None, stop: Stop | None = None
) -> Iterator[str]:
    """Serve for the length of the block; yields the base URL once the service answers.

    From its first moment on the port answers: that the service is alive, and not ready yet. If ``stop`` was asked for,
    the answers in flight at the block's end are waited for, for ``serve.drain_timeout_s`` at most or until it is forced,
    while new requests are refused.

    Raises:
        ArtifactError, EncoderMismatchError: index or run cannot be used, or not together.
        ConfigError: other machines would reach a service without keys, or its keys cannot be read.
        ServingError: the port is taken, Serve runs already, or a deployment cannot start (the message says of what).
    """
    config = _checked(config, config.serve.host)
    stop = stop or Stop()
    with _placeholder(config.serve, address) as placeholder:
        if placeholder:
            stop.num_waiting = lambda: placeholder.num_held
            stop.when_asked = placeholder.refuse
        # The port answers before this import, which takes seconds, and before index and run are opened.
        from ragray.cluster.serving.deployments import application, check_artifacts

        name = check_artifacts(index, run)
        joined = has_cluster(address)
        with session(address):
            require("serve", deployment_wants(config, read_snapshot(index)), wait_s=config.cluster.wait_s)
            service.require_none()
            app = application(str(index.resolve()), str(run.resolve()) if run else "", config, run_name=name)
            said = False
            try:
                for waited_for in service.start(app, config.serve):
                    stop.leave_if_idle()
                    if placeholder:
                        placeholder.wait_for(waited_for)
                        if stop.asked.is_set() and not said:
                            said = True
                            print(HELD.format(placeholder.num_held), flush=True)
                # Before the requests are handed over: while not `up`, a signal ends the process at once where the placeholder
                # holds no request, and would drop those that the service is answering.
                stop.up = True
                if placeholder:
                    placeholder.hand_over()
                url = base_url(config.serve)
                service.await_answer(url, stop.asked.is_set)
                try:
                    yield url
                finally:
                    if stop.asked.is_set():
                        drain(placeholder, config.serve, stop)
            finally:
                if joined:  # otherwise Serve ends with the cluster that `session` started
                    service.stop()


def drain(placeholder: Placeholder | None, config: ServeConfig, stop: Stop) -> None:
    """Refuse new requests and wait for the answers in flight; drop those that take longer than ``drain_timeout_s``."""
    deadline = time.monotonic() + config.drain_timeout_s
    if placeholder:
        placeholder.refuse()
    said = False
    while left := _in_flight(placeholder):
        if not said:
            print(
                f"stopping: {left} answer{'s' if left > 1 else ''} in flight {'are' if left > 1 else 'is'} waited for, "
                f"at most {config.drain_timeout_s:g} s; Ctrl-C again drops them",
                flush=True,
            )
            said = True
        if stop.forced.is_set() or time.monotonic() > deadline:
            print(f"stopping: {left} answer{'s' if left > 1 else ''} dropped", flush=True)
            service.refuse_requests(drop=True)
            break
        time.sleep(POLL_S)
    if said:
        time.sleep(SETTLE_S)


def _in_flight(placeholder: Placeholder | None) -> int:
    """Return the number of requests in flight; once the placeholder has none left, tell the service to refuse new ones."""
    if placeholder and (handed_on := placeholder.num_open):
        return handed_on
    return service.refuse_requests()


def _checked(config: Config, host: str) -> Config:
    return config.model_copy(update={"serve": checked_access(config.serve, host)})


def deployment_wants(config: Config, snapshot: Snapshot | None = None) -> list[Want]:
    """Return what the deployments of `application` reserve for a snapshot; Serve's own actors reserve nothing."""
    gateways, generators = config.serve.gateway_replicas, generator_copies(config)
    writing = Want(
        "Generator",
        generators.most,
        ("serve.generator_replicas", "serve.generator_gpus"),
        1,
        config.serve.generator_gpus,
        together=generators.least,
    )
    sharded = snapshot and config.retrieve.num_shards > 1
    spread = [pool_want(snapshot, config.retrieve)] if snapshot and sharded else []
    if config.serve.retriever == "gateway":
        settings = ("serve.gateway_replicas", "serve.retriever_gpus")
        return [Want("Gateway", gateways, settings, GATEWAY_CPUS, config.serve.retriever_gpus), *spread, writing]
    retrievers = retriever_copies(config)
    retrieving = Want(
        "Retriever",
        retrievers.most,
        ("retrieve.num_replicas", "serve.retriever_gpus"),
        RETRIEVER_CPUS,
        config.serve.retriever_gpus,
        together=retrievers.least,
    )
    return [Want("Gateway", gateways, ("serve.gateway_replicas",), GATEWAY_CPUS), retrieving, *spread, writing]


def base_url(config: ServeConfig) -> str:
    """Return the URL under which this machine reaches the service."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::", "") else config.host
    return f"http://[{host}]:{config.port}" if ":" in host else f"http://{host}:{config.port}"


def banner(url: str, index: Path, run: Path | None, *, engine: str = "torch", with_keys: bool = False) -> str:
    """Return what a person needs to use the service."""
    key = " -H 'Authorization: Bearer KEY'" if with_keys else ""
    return f"""
ragray serves {index}{f" with the run {run}" if run else " with the base model"}; {engine} encodes questions

  the page       {url}/
  ask       POST {url}/v1/answer
  look up   POST {url}/v1/search
  ready     GET  {url}/readyz
  docs           {url}/docs

  curl {url}/v1/answer -H 'Content-Type: application/json'{key} -d '{{"question": "..."}}'

Ctrl-C stops it.
"""


@contextlib.contextmanager
def _placeholder(config: ServeConfig, address: str | None) -> Iterator[Placeholder | None]:
    """Answer on the port for the length of the block, unless Ray's proxy may run on another machine or share no port."""
    if address or os.environ.get("RAY_ADDRESS"):
        yield None
        return
    if any(os.environ.get(name) == value for name, value in SHARES_NO_PORT):
        require_free_port(config)
        yield None
        return
    placeholder = Placeholder.start(config)
    try:
        yield placeholder
    finally:
        if placeholder:
            placeholder.close()
