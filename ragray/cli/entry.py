"""The entry point. In: the arguments of this process. Out: its exit code; Ctrl-C and SIGTERM are handled while it still imports."""

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
