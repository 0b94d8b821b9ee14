"""The command line. In: arguments. Out: one function called, its result printed; an error is one line on stderr and an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragray.cli.commands import app as app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; Ctrl-C and SIGTERM end it from here on, also while it imports."""
    from ragray import interrupts

    interrupts.watch()
    try:
        from ragray.cli.commands import run

        run()
    except (KeyboardInterrupt, SystemExit):
        if interrupts.received():
            interrupts.end()
        raise


def __getattr__(name: str) -> object:
    """Give `app` when it is asked for: to import it takes longer than a process should be without `main`'s care."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ragray.cli.commands import app

    return app
