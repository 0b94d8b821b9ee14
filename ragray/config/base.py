"""What every section of the configuration shares. In: values. Out: frozen models that refuse what they do not know; limits of numbers."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

MAX_SEED = 2**31 - 2
"""numpy, torch and FAISS all accept a seed from 0 to this number, and the seed after it."""

MAX_ACTORS = 10_000
MAX_THREADS = 1024
MAX_WAIT_S = 7 * 86_400
LEAST_CPUS = 1e-4
"""Ray counts CPUs and GPUs in steps of this size."""

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,]+")
"""What a browser sends as Origin: no path, no slash at the end."""


def _gpus(number: float) -> float:
    """Refuse what Ray cannot reserve: several GPUs are reserved whole."""
    if number > 1 and number != int(number):
        raise ValueError("more than one GPU must be a whole number")
    if 0 < number < LEAST_CPUS:
        raise ValueError(f"the smallest share of a GPU is {LEAST_CPUS:g}; 0 reserves none")
    return number


Gpus = Annotated[float, Field(ge=0, le=64), AfterValidator(_gpus)]


class Section(BaseModel):
    """Base of every section: frozen, and a key that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _can_be_encoded(cls, value: Any) -> Any:
        """Refuse a lone surrogate, which an argument that is not UTF-8 or a YAML escape may hold."""
        texts = (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ()
        try:
            "".join(text for text in texts if isinstance(text, str)).encode()
        except UnicodeEncodeError as err:
            raise ValueError(f"character {err.start + 1} cannot be written as UTF-8; mend or remove it") from err
        return value
