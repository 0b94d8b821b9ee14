"""Where a command begins. In: the arguments of this process. Out: its end; Ctrl-C and SIGTERM are heard while it still imports."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from ragray import interrupts

    interrupts.watch()
    try:
        from ragray.cli.commands import run

        run()
    except (KeyboardInterrupt, SystemExit):
        if interrupts.received():
            interrupts.end()
        raise
