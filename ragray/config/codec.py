"""The name of an encoding. In: what stands in a configuration. Out: the same, or an error where Python knows no such encoding."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _known(name: str) -> str:
    """Refuse an encoding that Python does not know."""
    try:
        "".encode("utf-8" if name == "auto" else name)
    except (LookupError, ValueError) as err:
        raise ValueError("is no encoding that Python knows; use auto, gb18030, big5, shift_jis ...") from err
    return name


Codec = Annotated[str, AfterValidator(_known)]
