"""JSON is JSON: no NaN, no infinity, no half characters; and the package writes it through one function."""

import ast
import json
from pathlib import Path

import pytest

import ragray
from ragray.errors import RagrayError
from ragray.jsontext import to_json

WITHOUT_NUMBERS_OR_FILES = {
    "artifact/digest.py": 1,  # a fingerprint
    "artifact/manifest.py": 1,  # a value in an error message
    "config/table.py": 1,  # a default value in a page of documentation
    "models.py": 1,  # a fingerprint
    "corpus/read/json_trees.py": 3,  # an excerpt of the source, as it stands there
    "index/write/diff.py": 1,  # a key in memory
    "index/check/inspect.py": 1,  # read back at once
    "cli/options.py": 1,  # read back at once
    "quickstart.py": 1,  # a question
    "serve/batch/route.py": 1,  # the body of a line, which was read as JSON, handed on within the process
    "serve/guard.py": 1,  # whole numbers and origins, for the proxy
}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"loss": float("nan")}, "loss is nan"),
        ({"rows": [{"score": 1.0}, {"score": float("inf")}]}, r"rows\[1\].score is inf"),
        ({"text": "half \ud83d"}, "text is 'half"),
    ],
)
def test_a_value_that_is_no_json_is_named_by_its_place(value: object, place: str) -> None:
    with pytest.raises(RagrayError, match=f"report: .*{place}"):
        to_json(value, "report")


def test_text_is_written_as_it_is() -> None:
    value = {"title": "北京 👍", "numbers": [1, 2.5, None, True]}
    assert json.loads(to_json(value, "x")) == value
    assert "北京" in to_json(value, "x")


def test_json_is_written_in_one_place() -> None:
    root = Path(ragray.__file__).parent
    found: dict[str, int] = {}
    for path in sorted(root.rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        number = sum(ast.unparse(call.func) in ("json.dumps", "json.dump") for call in calls)
        if number and path.name != "jsontext.py":
            found[path.relative_to(root).as_posix()] = number
    assert found == WITHOUT_NUMBERS_OR_FILES
