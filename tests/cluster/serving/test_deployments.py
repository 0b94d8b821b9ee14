"""Errors of Serve and of its replicas, on their way to a client."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from ragray.cluster.serving.remote import answer_of, translate_ray_errors
from ragray.cluster.serving.service import underlying_error
from ragray.errors import EncoderMismatchError, InputError, OverloadedError, ServingError


def test_errors_of_serve_and_of_replicas_come_out_as_errors_of_ragray() -> None:
    from ray.exceptions import RayActorError, RayTaskError
    from ray.serve.exceptions import BackPressureError

    cause = EncoderMismatchError("two encoders")
    for raised, expected in [
        (BackPressureError(3, 2), OverloadedError),
        (RayActorError(), ServingError),
        (RayTaskError("search", "a traceback", cause).as_instanceof_cause(), EncoderMismatchError),
    ]:
        with pytest.raises(expected) as caught, translate_ray_errors():
            raise raised
        assert "traceback" not in str(caught.value)


def test_a_request_whose_replica_ended_is_sent_again_and_every_other_error_is_told() -> None:
    from ray.exceptions import RayActorError, RayTaskError

    sent: list[Exception | None] = []

    def sending(*outcomes: Exception | None) -> Callable[[], Coroutine[None, None, str]]:
        left = iter(outcomes)

        async def answer() -> str:
            sent.append(error := next(left))
            if error:
                raise error
            return "answered"

        return answer

    died, wrong = RayActorError(), RayTaskError("search", "a traceback", InputError("k=0")).as_instanceof_cause()
    assert asyncio.run(answer_of(sending(died, died, None))) == "answered"  # type: ignore[arg-type] # a coroutine is awaited as well
    assert sent == [died, died, None]
    with pytest.raises(InputError, match="k=0"):
        asyncio.run(answer_of(sending(died, wrong, None)))  # type: ignore[arg-type]
    with pytest.raises(ServingError, match="ended"):
        asyncio.run(answer_of(sending(*[died] * 9)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "failed. Error:\nTraceback ...\n  File x\nragray.errors.CorruptArtifactError: a.npy: missing",
            "a.npy: missing",
        ),
        ("Error:\nKeyError: 'a'\n\nDuring handling ...\n\nValueError: no b\nsecond line", "ValueError: no b"),
        ("The actor died.\n", "The actor died."),
        ("", "no reason given"),
    ],
)
def test_the_underlying_error_is_the_last_one_raised(message: str, line: str) -> None:
    assert underlying_error(message) == line
