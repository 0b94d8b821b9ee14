"""schemathesis against a service of this machine. In: a number of examples. Out: its report; exit code 1 where it found something.

python -m tests.fuzz [--examples 40] [ARGUMENT OF schemathesis ...]

It looks for errors of the server, and for statuses, content types and bodies that the OpenAPI document does not have. It lives in an
environment of its own, `work/fuzz`. The service has the three passages of the tests, the fake encoder and generator, and a key.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ragray.config import Config, ServeConfig
from ragray.serve.access.keys import add_key
from tests.serve.online import listening
from tests.serve.river import make_index, river_client
from tests.venvs import python_with

HOOKS = Path(__file__).with_name("hooks.py")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=40, help="requests per route and phase, at most")
    parser.add_argument("--venv", type=Path, default=Path("work/fuzz"), help="environment of schemathesis")
    asked, more = parser.parse_known_args()
    python = python_with(asked.venv, ("schemathesis",))
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        secret = add_key(keys, "fuzz")
        config = Config(serve=ServeConfig(keys_file=str(keys), max_question_chars=200, max_body_bytes=20_000))
        with river_client(make_index(Path(folder) / "index"), config=config) as river, listening(river.app) as address:
            command = [str(python.with_name("schemathesis")), "run", f"{address}/openapi.json", "--checks", CHECKS]
            command += ["--max-examples", str(asked.examples), "--header", f"Authorization: Bearer {secret}"]
            command += ["--generation-database", "none", *more]
            environment = os.environ | {"SCHEMATHESIS_HOOKS": str(HOOKS)}
            return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
