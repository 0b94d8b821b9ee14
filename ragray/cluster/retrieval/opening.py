"""Actors that open a snapshot. In: what they were sent. Out: nothing once all have opened it, else what is missing or went wrong."""

from __future__ import annotations

import logging
from typing import Any

from ragray.cluster.failures import cause
from ragray.errors import ArtifactError, RagrayError
from ragray.failures import told

NOTICE_S = 10.0
"""After so long without an answer from every actor, the log says what is waited for."""

START_TIMEOUT_S = 600.0
"""Actors that take longer to open a snapshot are given up: the cluster has no room for them, or storage hangs."""

log = logging.getLogger(__name__)


def await_open(opened: list[Any], what: str) -> None:
    """Wait until all actors have opened a snapshot; log what is missing where that takes longer than `NOTICE_S`.

    Raises:
        ArtifactError: an actor cannot open it.
        RagrayError: not all actors have started in time.
    """
    import ray
    from ray.exceptions import ActorUnavailableError, RayError

    _, missing = ray.wait(opened, num_returns=len(opened), timeout=NOTICE_S)
    if missing:
        log.warning("%s: %s; waiting", what, _shortage(len(missing), len(opened)))
        _, missing = ray.wait(opened, num_returns=len(opened), timeout=START_TIMEOUT_S)
    if missing:
        raise RagrayError(
            f"{what}: {_shortage(len(missing), len(opened))} after {NOTICE_S + START_TIMEOUT_S:.0f} s; end other jobs, or "
            "lower retrieve.num_shards, num_replicas or cpus_per_actor"
        )
    for reference in opened:
        try:
            ray.get(reference)
        except ActorUnavailableError:
            continue  # it is being started again, and opens what the first search names
        except RayError as err:
            found = told(cause(err), what, kind=ArtifactError)
            raise type(found)(f"a retriever could not open {what}: {found}") from err


def _shortage(missing: int, actors: int) -> str:
    import ray

    free, total = (resources().get("CPU", 0) for resources in (ray.available_resources, ray.cluster_resources))
    return f"{missing} of {actors} retriever actors have not opened it, and {free:g} of the cluster's {total:g} CPUs are free"
