"""The page in a real browser: `python -m tests.browser`. Not a part of `make test`."""
