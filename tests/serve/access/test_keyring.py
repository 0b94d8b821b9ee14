"""Keys in force: a change of the file counts within a second, a damaged file changes nothing."""

from pathlib import Path

import pytest

from ragray.errors import ConfigError
from ragray.serve.access.keyring import CHECK_S, Keyring
from ragray.serve.access.keys import add_key, revoke_key


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def name_of(keyring: Keyring, secret: str) -> str:
    found = keyring.find(secret)
    return found.name if found else ""


def test_a_key_is_found_by_its_secret_alone(file: Path) -> None:
    ann, bob = add_key(file, "ann"), add_key(file, "bob")
    keyring = Keyring(file)
    assert [name_of(keyring, secret) for secret in (ann, bob)] == ["ann", "bob"]
    for wrong in ("", "ann", ann[:-1], f"{ann}x", ann.upper(), "ключ", "\udcff"):
        assert keyring.find(wrong) is None


def test_a_change_of_the_file_counts_when_it_is_looked_at_again(file: Path, clock: Clock) -> None:
    ann = add_key(file, "ann")
    keyring = Keyring(file, clock=clock)
    bob = add_key(file, "bob")
    revoke_key(file, "ann")
    clock.pass_by(CHECK_S / 2)
    assert [name_of(keyring, secret) for secret in (ann, bob)] == ["ann", ""]
    clock.pass_by(CHECK_S / 2)
    assert [name_of(keyring, secret) for secret in (ann, bob)] == ["", "bob"]


@pytest.mark.parametrize("damage", ["", "{", '{"keys": [{}]}', None])
def test_a_damaged_or_missing_file_keeps_the_keys_in_force_and_lets_nobody_else_in(
    file: Path, clock: Clock, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    ann = add_key(file, "ann")
    keyring = Keyring(file, clock=clock)
    whole = file.read_text()
    file.unlink() if damage is None else file.write_text(damage)
    for _ in range(2):
        clock.pass_by(CHECK_S)
        assert name_of(keyring, ann) == "ann"
        assert keyring.find("anybody") is None
    [record] = caplog.records
    assert str(file) in record.getMessage()
    file.write_text(whole)
    revoke_key(file, "ann")
    clock.pass_by(CHECK_S)
    assert keyring.find(ann) is None


def test_without_a_whole_file_no_keyring_begins(file: Path) -> None:
    with pytest.raises(ConfigError):
        Keyring(file)
    file.write_text("{")
    with pytest.raises(ConfigError):
        Keyring(file)
