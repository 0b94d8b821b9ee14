"""The command line. In: arguments. Out: one function called, its result printed; an error is one line on stderr and an exit code."""

from ragray.cli.main import app, main

__all__ = ["app", "main"]
