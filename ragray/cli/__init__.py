"""The command line. In: arguments. Out: one function called, its result printed; an error is one line on stderr and an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragray.cli.entry import main as main

if TYPE_CHECKING:
    from ragray.cli.commands import app as app

__all__ = ["app", "main"]


def __getattr__(name: str) -> object:
    """Import `app` only when it is asked for. The import is slow, and `main` must handle signals before it."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ragray.cli.commands import app

    return app
