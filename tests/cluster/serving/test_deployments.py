"""Errors of Serve and of its replicas, on their way to a client."""

import pytest

from ragray.cluster.serving.remote import translate_ray_errors
from ragray.cluster.serving.service import underlying_error
from ragray.errors import EncoderMismatchError, OverloadedError, ServingError


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
