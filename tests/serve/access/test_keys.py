"""The file of keys: what it holds, what it refuses, who may read it."""

import json
import resource
import stat
import threading
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from ragray.errors import ArtifactError, ConfigError, InputError
from ragray.serve.access.keys import PREFIX, add_key, read_keys, require_bounding, revoke_key

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "keys.json"


def test_the_file_holds_the_digest_of_a_key_and_never_the_key(file: Path) -> None:
    secret = add_key(file, "ann")
    assert secret.startswith(PREFIX)
    assert len(secret) - len(PREFIX) == 43  # 256 bits, six per character
    text = file.read_text()
    assert secret not in text
    assert sha256(secret.encode()).hexdigest() in text


def test_only_its_owner_reads_the_file(file: Path) -> None:
    add_key(file, "ann")
    add_key(file, "bob")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_read_is_what_was_added(file: Path) -> None:
    expires = NOW + timedelta(days=1)
    add_key(file, "ann", where="team == ops", requests_per_minute=6, tokens_per_minute=700, expires=expires, now=NOW)
    add_key(file, "小明", now=NOW)
    ann, ming = read_keys(file)
    assert (ann.name, ann.where, ann.requests_per_minute, ann.tokens_per_minute) == ("ann", "team == ops", 6, 700)
    assert (ann.expires, ann.created) == (expires, NOW)
    assert (ming.name, ming.where, ming.requests_per_minute, ming.expires) == ("小明", "", 0, None)


def test_a_revoked_key_is_gone_and_its_name_is_free(file: Path) -> None:
    first = add_key(file, "ann")
    add_key(file, "bob")
    revoke_key(file, "ann")
    assert [key.name for key in read_keys(file)] == ["bob"]
    assert add_key(file, "ann") != first


def test_a_key_expires_at_its_first_moment_after(file: Path) -> None:
    add_key(file, "ann", expires=NOW, now=NOW - timedelta(hours=1))
    [key] = read_keys(file)
    assert not key.is_expired(NOW - timedelta(microseconds=1))
    assert key.is_expired(NOW)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("ann", {}, "has a key 'ann' already"),
        ("two words", {}, "1 to 64 letters"),
        ("", {}, "1 to 64 letters"),
        ("bob", {"where": "team =="}, "expected a value"),
        ("bob", {"where": "team != ops"}, "also matches passages that lack its fields"),
        ("bob", {"expires": NOW, "now": NOW}, "is over already"),
    ],
)
def test_a_key_that_cannot_be_is_refused_and_the_file_stays(
    file: Path, name: str, settings: dict[str, object], message: str
) -> None:
    add_key(file, "ann")
    before = file.read_bytes()
    with pytest.raises(InputError, match=message):
        add_key(file, name, **settings)  # type: ignore[arg-type] # settings of any type
    assert file.read_bytes() == before


@pytest.mark.parametrize("where", ["", "team == ops", "not team != ops", "year >= 2020 and team in (ops, dev)"])
def test_a_filter_that_says_what_may_be_found_bounds_a_key(where: str) -> None:
    require_bounding(where)


@pytest.mark.parametrize(
    "where", ["not team == ops", "team == ops or year != 2020", "secret not in (yes)", 'title == ""']
)
def test_a_filter_that_a_misspelt_field_would_open_is_refused(where: str) -> None:
    with pytest.raises(InputError, match="lack its fields"):
        require_bounding(where)


def test_an_unknown_name_is_not_revoked_and_the_names_are_told(file: Path) -> None:
    add_key(file, "ann")
    with pytest.raises(InputError, match="no key 'bob'; there are ann"):
        revoke_key(file, "bob")


def test_keys_added_at_the_same_time_are_all_kept(file: Path) -> None:
    names = [f"n{number}" for number in range(8)]
    threads = [threading.Thread(target=add_key, args=(file, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in read_keys(file)) == names


def test_a_missing_file_names_the_command_that_makes_one(file: Path) -> None:
    with pytest.raises(ConfigError, match=f"ragray keys add NAME serve.keys_file={file}"):
        read_keys(file)


ENTRY = {"name": "ann", "sha256": "0" * 64, "created": "2030-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "the file: Invalid JSON"),
        ({"format": 2}, "format"),
        ({"keys": [ENTRY | {"sha256": "short"}]}, r"keys\.0\.sha256"),
        ({"keys": [ENTRY | {"scope": "all"}]}, r"keys\.0\.scope"),
        ({"keys": [ENTRY, ENTRY]}, "2 keys have the name 'ann'"),
        ({"keys": [ENTRY | {"where": "team !="}]}, "key 'ann': filter"),
        ({"keys": [ENTRY | {"where": "team != ops"}]}, "key 'ann': filter"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_place(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=message) as caught:
        read_keys(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_written_is_named_and_stays_as_it_was(file: Path) -> None:
    add_key(file, "ann")
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(ArtifactError, match=f"^{file}: .*file larger than"):
            add_key(file, "bob")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir() if path.suffix == ".tmp"] == []
