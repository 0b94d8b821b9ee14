"""Which failures of workers are tried again: deaths, and nothing else."""

from pathlib import Path

import pytest
from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

from ragray.cluster.failures import PeerLostError, cause, is_peer_loss, verdict
from ragray.errors import ArtifactError, InputError, RagrayError

DIED = WorkerHealthCheckFailedError("A worker health check failed.", ActorDiedError())


def in_a_task(error: Exception) -> RayTaskError:
    """Wrap an error as Ray does when a task raises it."""
    return RayTaskError("search", "Traceback ...", error).as_instanceof_cause()


@pytest.mark.parametrize(
    "errors",
    [
        [DIED],
        [WorkerHealthCheckTimeoutError("hangs")],
        [PeerLostError("Connection closed by peer"), DIED],
        [PeerLostError("Connection closed by peer")],
        [WorkerHealthCheckFailedError("failed", OutOfMemoryError("killed by the memory monitor"))],
        [WorkerCrashedError()],
        [NodeDiedError("gone")],
        [ObjectLostError("ab" * 14, "owner", "stack")],
        [],
    ],
    ids=lambda errors: "+".join(type(error).__name__ for error in errors) or "nothing",
)
def test_deaths_are_tried_again(errors: list[Exception]) -> None:
    assert verdict(errors, Path("run")) is None


@pytest.mark.parametrize(
    ("errors", "kind", "message"),
    [
        ([InputError("train.jsonl:8: bad")], InputError, "train.jsonl:8: bad"),
        ([PeerLostError("closed"), DIED, InputError("train.jsonl:8: bad")], InputError, "train.jsonl:8: bad"),
        ([ValueError("x"), InputError("train.jsonl:8: bad")], InputError, "train.jsonl:8: bad"),
        ([in_a_task(InputError("shard 3"))], InputError, "shard 3"),
        ([ValueError("first\nsecond")], RagrayError, "run: ValueError: first; mend that, then run again"),
        ([in_a_task(ValueError("inner"))], RagrayError, "run: ValueError: inner; mend that, then run again"),
        ([PermissionError(13, "Permission denied", "/x")], ArtifactError, "/x: cannot be read or written (permission denied)"),
    ],
)  # fmt: skip
def test_what_code_raised_ends_the_training_at_once(
    errors: list[Exception], kind: type[RagrayError], message: str
) -> None:
    found = verdict(errors, Path("run"))
    assert type(found) is kind and str(found).startswith(message)


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234"), True),
        (RuntimeError("Read error [127.0.0.1]:1234: Connection reset by peer"), True),
        (RuntimeError("NCCL error: ncclRemoteError: A call failed possibly due to a network error"), True),
        (RuntimeError("Timed out waiting 1800000ms for recv operation to complete"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (ValueError("Connection closed by peer"), False),
    ],
)
def test_a_lost_peer_is_told_from_an_error_of_ones_own(error: Exception, is_lost: bool) -> None:
    assert is_peer_loss(error) is is_lost


def test_the_cause_is_found_within_what_ray_wraps_around_it() -> None:
    inner = ValueError("inner")
    assert cause(in_a_task(inner)) is inner
    outer = KeyError("outer")
    outer.__cause__ = inner
    assert cause(outer) is outer
