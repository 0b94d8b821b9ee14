"""`ragray keys`: a key is printed once, and what is listed afterwards is everything but the key."""

import json
from pathlib import Path

import pytest

from ragray.serve.access.keyring import Keyring
from tests.helpers import Command
from tests.serve.access.teams import make_index


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"serve.keys_file={tmp_path / 'keys.json'}"


def test_a_key_that_is_printed_opens_until_it_is_revoked(run_command: Command, file: str, tmp_path: Path) -> None:
    ended = run_command("keys", "add", "ann", file, "--where", "team == red", "--requests-per-minute", 5)
    assert ended.code == 0
    assert ended.logged == (f"{tmp_path}/keys.json: key 'ann' added; serve with {file}",)
    secret = ended.output.strip()
    [found] = filter(None, [Keyring(tmp_path / "keys.json").find(secret)])
    assert (found.name, found.where, found.requests_per_minute) == ("ann", "team == red", 5)
    assert run_command("keys", "revoke", "ann", file).code == 0
    assert Keyring(tmp_path / "keys.json").find(secret) is None


def test_a_list_shows_names_filters_limits_and_dates_and_no_digest(run_command: Command, file: str) -> None:
    run_command("keys", "add", "ann", file, "--where", "team == red", "--tokens-per-minute", 900)
    run_command("keys", "add", "bob", file, "--expires", "2999-01-31")
    ann, bob = run_command("keys", "list", file).output.splitlines()
    assert ann.startswith("ann  created 20")
    assert ann.endswith(", 900 tokens/minute  where team == red")
    assert bob.endswith(", expires 2999-01-31 00:00")
    listed = json.loads(run_command("keys", "list", file, "--json").output)
    assert [(key["name"], key["expires"]) for key in listed] == [("ann", None), ("bob", "2999-01-31T00:00:00Z")]
    assert all("sha256" not in key for key in listed)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["add", "ann", "--where", "team != red"], 3, "lack its fields"),
        (["add", "ann", "--expires", "2001-01-31"], 3, "is over already"),
        (["revoke", "ann"], 2, "no such file of keys"),
        (["list"], 2, "no such file of keys"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run_command: Command, file: str, arguments: list[str], code: int, message: str
) -> None:
    ended = run_command("keys", *arguments, file)
    assert (ended.code, ended.output) == (code, "")
    [line] = ended.errors
    assert message in line


def test_a_field_that_the_index_lacks_is_warned_of(run_command: Command, file: str, tmp_path: Path) -> None:
    index = make_index(tmp_path / "index")
    right = run_command("keys", "add", "ann", file, "--where", "team == red", "--index", index)
    wrong = run_command("keys", "add", "bob", file, "--where", "taem == red", "--index", index)
    assert (right.code, wrong.code) == (0, 0)
    assert [line for line in right.logged if "no passage has" in line] == []
    assert "no passage has the field 'taem'; there are id, document_id, title, team" in wrong.logged[0]


def test_a_service_that_others_reach_is_refused_without_keys(run_command: Command, tmp_path: Path) -> None:
    ended = run_command("serve", "--index", tmp_path / "index", "serve.host=0.0.0.0")
    assert (ended.code, ended.output) == (2, "")
    [line] = ended.errors
    assert "others reach the service on host 0.0.0.0" in line
