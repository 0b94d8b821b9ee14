"""`python -m ragray.cli`."""

from ragray.cli.entry import main

main()
