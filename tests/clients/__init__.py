"""Official clients, unmodified, against a service: `python -m tests.clients`. Not a part of `make test`."""
