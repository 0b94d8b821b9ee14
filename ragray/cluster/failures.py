"""Which failures on a cluster are tried again. In: what Ray or a worker raised. Out: the error to end with, or None after a death.

Only what a lost process or node brings about may go away by itself; whatever code raises, it would raise again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ragray.errors import RagrayError
from ragray.failures import told

_PEER = re.compile(
    r"connection (closed|reset|refused|aborted)|broken pipe|socket closed|closed by peer|remote process exited|ncclRemoteError"
    r"|communicator was aborted|failed to (recv|send|connect)|(recv|send)value failed|timed out waiting \d+ ?ms",
    re.IGNORECASE,
)
"""What gloo, NCCL and torch's store say to the workers that are left when one of them died."""


class PeerLostError(Exception):
    """A training worker lost the connection to another one; why, the other one's own failure says."""


def cause(error: BaseException) -> BaseException:
    """Return what the code in a task or an actor raised, without the errors that Ray wraps around it."""
    seen = error
    while isinstance(inner := getattr(seen, "cause", None) or seen.__cause__, BaseException) and _wraps(seen):
        seen = inner
    return seen


def is_death(error: BaseException) -> bool:
    """Return whether an error means that a process or a node is lost, or that Ray could not reach it."""
    from ray import exceptions
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

    if isinstance(error, WorkerHealthCheckFailedError):
        return is_death(error.health_check_failure)
    lost = (
        exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.LocalRayletDiedError,
        exceptions.OutOfMemoryError, exceptions.ObjectLostError, exceptions.RaySystemError, exceptions.RpcError,
    )  # fmt: skip
    return isinstance(error, (*lost, WorkerHealthCheckTimeoutError, PeerLostError))


def is_peer_loss(error: BaseException) -> bool:
    """Return whether a worker raised this because another worker is gone."""
    return isinstance(error, RuntimeError) and bool(_PEER.search(str(error)))


def verdict(errors: Sequence[BaseException], where: Path) -> RagrayError | None:
    """Return what ends the work at once; None where processes died and nothing else went wrong."""
    lasting = [error for error in map(cause, errors) if not is_death(error)]
    lasting.sort(key=lambda error: not isinstance(error, RagrayError))
    return told(lasting[0], where) if lasting else None


def _wraps(error: BaseException) -> bool:
    from ray.exceptions import RayTaskError, UserCodeException

    return isinstance(error, RayTaskError | UserCodeException)
