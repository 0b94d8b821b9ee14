"""Official clients against a service. In: an address, or none. Out: a line for each thing that holds, exit code 1 where one does not.

python -m tests.clients [--url http://127.0.0.1:8000] [--key KEY]

Without an address it serves the three passages of the tests, with the fake encoder and generator. The clients live in an environment
of their own, `work/clients`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serve.online import listening
from tests.serve.river import make_index, river_client
from tests.venvs import python_with

CLIENTS = ("openai", "langchain-openai", "llama-index-llms-openai-like", "mcp")
CHECKS = Path(__file__).with_name("checks.py")


def arguments() -> argparse.Namespace:
    """Return the options of this command."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="", help="a service that runs; one of its own is started without it")
    parser.add_argument("--key", default="none", help="a key of that service")
    parser.add_argument("--venv", type=Path, default=Path("work/clients"), help="environment of the clients")
    return parser.parse_args()


@contextmanager
def service(url: str) -> Iterator[str]:
    """Yield the address of the service that runs, or of one that is started."""
    if url:
        yield url.rstrip("/")
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        river_client(make_index(Path(folder))) as river,
        listening(river.app) as address,
    ):
        yield address


def main() -> int:
    """Run all checks."""
    asked = arguments()
    python = python_with(asked.venv, CLIENTS)
    with service(asked.url) as address:
        return subprocess.run([str(python), str(CHECKS), address, asked.key], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
