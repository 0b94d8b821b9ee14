"""Before a service starts: who reaches it, and whether its keys are there."""

from pathlib import Path

import pytest

from ragray.config import ServeConfig
from ragray.errors import ConfigError
from ragray.serve.access.keys import add_key
from ragray.serve.access.settings import checked_access, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_only_this_machine_reaches_a_loopback_address(host: str) -> None:
    assert is_loopback(host)
    assert checked_access(ServeConfig(), host) == ServeConfig()


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.7", "192.168.1.2", "fe80::1", "rag.example", "localhost.example"]
)
def test_where_others_reach_it_a_service_needs_keys_or_the_word_insecure(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ragray keys add NAME.*serve\.keys_file=FILE.*--insecure") as caught:
        checked_access(ServeConfig(), host)
    assert "\n" not in str(caught.value)
    assert (host or "0.0.0.0") in str(caught.value)
    assert checked_access(ServeConfig(insecure=True), host).insecure
    file = tmp_path / "keys.json"
    add_key(file, "ann")
    assert checked_access(ServeConfig(keys_file=str(file)), host).keys_file == str(file)


def test_paths_hold_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    add_key(Path("keys.json"), "ann")
    checked = checked_access(ServeConfig(keys_file="keys.json", access_log="access.log"), "127.0.0.1")
    assert (checked.keys_file, checked.access_log) == (str(tmp_path / "keys.json"), str(tmp_path / "access.log"))
    assert checked_access(ServeConfig(access_log="stderr"), "127.0.0.1").access_log == "stderr"


def test_keys_that_cannot_be_read_end_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file of keys"):
        checked_access(ServeConfig(keys_file=str(tmp_path / "none.json")), "127.0.0.1")
