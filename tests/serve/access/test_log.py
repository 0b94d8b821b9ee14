"""The access log: a line for each request, and no text of a question unless that is asked for."""

import json
from pathlib import Path
from typing import Any

import pytest

from ragray.config import ServeConfig
from ragray.errors import ConfigError
from tests.serve.access.teams import bearer, client_of

QUESTION = "Where is the plum of team red?"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def test_a_line_names_the_request_its_key_and_what_it_cost(
    teams_index: Path, keys_file: Path, secrets: dict[str, str], log: Path
) -> None:
    headers = bearer(secrets["red"])
    with client_of(teams_index, ServeConfig(keys_file=str(keys_file), access_log=str(log))) as client:
        answered = client.post("/v1/answer?q=secret", json={"question": QUESTION}, headers=headers)
        named = {**headers, "X-Request-ID": "mine"}
        client.post("/v1/answer", json={"question": QUESTION, "stream": True}, headers=named)
        client.post("/v1/search", json={"query": QUESTION}, headers=bearer("unknown"))
        client.get("/healthz")
    whole, streamed, refused, probed = lines(log)
    assert list(whole) == ["time", "request_id", "key", "method", "route", "status", "ms", "tokens", "snapshot"]
    assert (whole["key"], whole["method"], whole["route"], whole["status"]) == ("red", "POST", "/v1/answer", 200)
    assert whole["request_id"] == answered.headers["x-request-id"]
    assert (streamed["request_id"], streamed["tokens"]) == ("mine", whole["tokens"])
    assert whole["tokens"] > 0
    assert whole["snapshot"] == streamed["snapshot"] == answered.json()["snapshot"]
    assert (refused["key"], refused["status"], refused["tokens"], refused["snapshot"]) == ("", 401, 0, "")
    assert (probed["route"], probed["status"]) == ("/healthz", 200)


def test_neither_questions_nor_keys_are_written_down(
    teams_index: Path, keys_file: Path, secrets: dict[str, str], log: Path
) -> None:
    with client_of(teams_index, ServeConfig(keys_file=str(keys_file), access_log=str(log))) as client:
        client.post("/v1/answer", json={"question": QUESTION}, headers=bearer(secrets["red"]))
    text = log.read_text()
    assert "plum" not in text
    assert secrets["red"] not in text


def test_questions_are_written_down_where_that_is_asked_for(teams_index: Path, log: Path) -> None:
    with client_of(teams_index, ServeConfig(access_log=str(log), log_questions=True)) as client:
        client.post("/v1/answer", json={"question": "哪里？\nline", "closed_book": True})
        client.post("/retrieve", json={"queries": ["fig", "", "pear"]})
        client.get("/v1/models")
    assert [line["questions"] for line in lines(log)] == [["哪里？\nline"], ["fig", "pear"], []]


def test_a_log_that_is_moved_away_is_begun_anew(teams_index: Path, log: Path) -> None:
    with client_of(teams_index, ServeConfig(access_log=str(log))) as client:
        client.get("/healthz")
        log.rename(log.with_suffix(".1"))
        client.get("/readyz")
    assert [line["route"] for line in lines(log.with_suffix(".1"))] == ["/healthz"]
    assert [line["route"] for line in lines(log)] == ["/readyz"]


def test_the_log_may_go_to_stderr_and_by_default_goes_nowhere(
    teams_index: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with client_of(teams_index, ServeConfig()) as client:
        client.get("/healthz")
    assert capfd.readouterr().err == ""
    with client_of(teams_index, ServeConfig(access_log="stderr")) as client:
        client.get("/healthz")
    assert json.loads(capfd.readouterr().err)["route"] == "/healthz"


def test_a_log_that_cannot_be_written_ends_the_start(teams_index: Path, tmp_path: Path) -> None:
    settings = ServeConfig(access_log=str(tmp_path / "none" / "access.log"))
    with pytest.raises(ConfigError, match=r"serve\.access_log=.*name another file"), client_of(teams_index, settings):
        pass
