"""An application on Ray Serve, from start to stop. In: an application. Out: a service, or the reason why not."""

from __future__ import annotations

import contextlib
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from ragray.config import ServeConfig
from ragray.errors import ServingError, first_line

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.schema import DeploymentStatusOverview

logger = logging.getLogger("ragray.serve")

APPLICATION = "ragray"
LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 900.0
STOP_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 5.0
PROXY_GRACE_S = 5.0
"""Seconds that the proxy waits longer than the application, which ends a late request with a readable error."""

SCALED = ("HEALTHY", "UPSCALING", "DOWNSCALING")
"""States of a deployment that has as many replicas as it is to have now, or gets them."""

RAISED = re.compile(r"^((?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)): (.+)")


def require_none() -> None:
    """Raise `ServingError` if Serve runs on the cluster already: its port and its applications belong to someone else."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    status = serve.status()
    if status.proxies or status.applications:
        names = ", ".join(sorted(status.applications)) or "none"
        raise ServingError(
            f"Serve runs on this cluster already (applications: {names}); deploy to it with "
            "`serve deploy serve_configs/laptop.yaml`, or end it with `serve shutdown`"
        )


def listening_host() -> str:
    """Return the address that Serve's proxies on this cluster listen on; that of this machine alone where none does."""
    import ray

    if not ray.is_initialized():
        return LOOPBACK
    try:
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return LOOPBACK
    host = ray.get(controller.get_http_config.remote()).host
    return LOOPBACK if host is None else str(host)


def start(app: Application, config: ServeConfig) -> Iterator[str]:
    """Start Serve, deploy the application, and yield what it waits for, several times a second, until all of it runs.

    Raises:
        ServingError: the port is taken, or a replica did not start; the message ends with the error that it died of.
    """
    from ray import serve

    # Serve takes HTTP options only when it is started, so that it is started before an application is deployed.
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    http = {"host": config.host, "port": config.port, "request_timeout_s": config.request_timeout_s + PROXY_GRACE_S}
    serve.start(proxy_location="HeadOnly", http_options=http, logging_config=quiet)
    serve.run_many(
        [serve.RunTarget(app, name=APPLICATION, route_prefix="/")],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    yield from _await_deployments()


def await_answer(url: str, stopping: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until the service says over HTTP that it is ready, or is to stop; raises `ServingError` if that takes too long."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout_s
    while not stopping():
        try:
            with opener.open(f"{url}/readyz", timeout=timeout_s):
                return
        except OSError as err:
            if isinstance(err, urllib.error.HTTPError):
                err.close()
            if time.monotonic() > deadline:
                raise ServingError(f"the service runs, but {url}/readyz does not answer from here ({err})") from err
            time.sleep(0.1)


def refuse_requests(*, drop: bool = False) -> int:
    """Let all Gateways refuse requests from now on; returns how many they are answering, after dropping them with ``drop``."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        gateways = serve.get_app_handle(APPLICATION)
        return sum(gateways.broadcast("refuse_requests", drop).results(timeout_s=CALL_TIMEOUT_S))
    except (RayError, RayServeException, TimeoutError) as err:
        logger.warning("serve: the Gateway does not answer (%s); answers in flight are not waited for", first_line(err))
        return 0


def stop() -> None:
    """End Serve on this cluster and wait until it is gone; requests that are being answered are answered first."""
    import ray
    from ray import serve

    with contextlib.suppress(ValueError):
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
        # `serve.shutdown` waits for a call that never returns, which Ray then reports on stdout as a failure.
        ray.get(controller.graceful_shutdown.remote(wait=False))
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
            time.sleep(0.05)
    serve.shutdown()


def underlying_error(message: str) -> str:
    """Return the one line of a Serve message, a traceback of tracebacks, that holds the error itself."""
    lines = [line for line in message.splitlines() if line.strip()]
    for line in reversed(lines):
        if found := RAISED.match(line):
            name, reason = found.groups()
            return reason if name.startswith("ragray.") else f"{name}: {reason}"
    return lines[-1].strip() if lines else "no reason given"


def loading(deployments: Mapping[str, DeploymentStatusOverview]) -> list[str]:
    """Return the deployments without a running replica, each with the first line of its status message.

    One that autoscaling has let fall to none, or is starting again, answers what it is asked; it is left out.
    """
    found = []
    for name, state in deployments.items():
        if state.replica_states.get("RUNNING", 0) == 0 and state.status.value not in SCALED:
            reason = (state.message.strip() or "loading").splitlines()[0]
            found.append(f"{name}: {reason}")
    return found


def _await_deployments() -> Iterator[str]:
    """Yield what is waited for until every deployment runs; the first replica that fails to start ends the wait."""
    from ray import serve

    deadline = time.monotonic() + START_TIMEOUT_S
    said: set[str] = set()
    while time.monotonic() < deadline:
        state = serve.status().applications[APPLICATION]
        if state.status.value == "RUNNING":
            return
        for name, deployment in state.deployments.items():
            if "failed to start" in deployment.message:
                raise ServingError(f"{name} cannot start: {underlying_error(deployment.message)}")
            if deployment.message and deployment.message not in said:
                said.add(deployment.message)
                logger.warning("%s: %s", name, deployment.message)
        if state.status.value == "DEPLOY_FAILED":
            raise ServingError(f"the service cannot start: {underlying_error(state.message)}")
        yield f"the service is loading ({'; '.join(loading(state.deployments)) or 'starting'})"
        time.sleep(0.1)
    raise ServingError(
        f"the service did not start within {START_TIMEOUT_S:.0f} s: {'; '.join(said) or 'no reason given'}"
    )
