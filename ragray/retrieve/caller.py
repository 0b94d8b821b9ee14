"""Who asks. In: a request. Out: the filter that its lookups are bound to, and a record of what it looked up and used.

The caller travels in a context variable, which asyncio copies into every task that a request starts, so that no route has to
hand it on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from ragray.errors import ServingError
from ragray.retrieve.retriever import SearchOptions, both


@dataclass(slots=True)
class Caller:
    """One request: the name of its key ("" without one), the filter of that key, and what the request did so far.

    ``num_tokens`` counts what the models read and wrote for it, as far as they report it; ``retrieve_s`` is the time
    of its last lookup. ``degraded`` says what was spared because
    many requests were waiting.
    """

    name: str = ""
    where: str = ""
    questions: list[str] = field(default_factory=list)
    snapshot: str = ""
    num_tokens: int = 0
    retrieve_s: float | None = None
    degraded: str = ""


_CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)


@contextlib.contextmanager
def calling(caller: Caller) -> Iterator[None]:
    """Let everything in the block be done for a caller."""
    before = _CALLER.set(caller)
    try:
        yield
    finally:
        _CALLER.reset(before)


def current_caller() -> Caller:
    """Return for whom this is done: nobody in particular where no request is being answered."""
    return _CALLER.get() or Caller()


def bound(options: SearchOptions, *, with_keys: bool = False) -> SearchOptions:
    """Return the options of a lookup, with the filter of the caller's key beside their own.

    Raises:
        InputError: the filter of the options cannot be read by itself.
        ServingError: the lookup is done for nobody that has a key, although the service demands one (``with_keys``).
    """
    caller = current_caller()
    if with_keys and not caller.name:
        raise ServingError("a lookup outside of a request with a key is refused, because serve.keys_file is set")
    return replace(options, where=both(caller.where, options.where)) if caller.where else options
