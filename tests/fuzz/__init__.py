"""Requests made up from the OpenAPI document: `python -m tests.fuzz`. Not a part of `make test`."""
