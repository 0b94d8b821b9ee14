"""`python -m ragray.cli`."""

from ragray.cli import main

main()
