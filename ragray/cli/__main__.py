"""`python -m ragray.cli`."""

from ragray.cli.main import main

main()
