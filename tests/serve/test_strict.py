"""Bodies as JSON: what is refused, with which status, and under which name."""

import json

import pytest
from fastapi.testclient import TestClient

from ragray.config import ServeConfig
from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.serve.app import create_app
from ragray.serve.local import LocalAnswerer
from ragray.serve.strict import read_json
from tests.serve.test_app import FixedRetriever

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client() -> TestClient:
    answerer = LocalAnswerer(FixedRetriever(), FirstSentenceGenerator(), k=2)
    return TestClient(create_app(answerer, ServeConfig()), raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("content_type", "named"),
    [
        (None, "has no Content-Type"),
        ("application/x-www-form-urlencoded", "'application/x-www-form-urlencoded'"),
        ("text/plain; charset=utf-8", "'text/plain; charset=utf-8'"),
        ("json", "'json'"),
    ],
)
def test_a_content_type_that_is_missing_or_not_json_is_415_and_named(
    client: TestClient, content_type: str | None, named: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = client.post("/v1/answer", content=b'{"question": "who?"}', headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (415, "unsupported_media_type")
    assert named in error["message"]
    assert error["message"].endswith("expected application/json")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"])
def test_every_spelling_of_json_is_taken(client: TestClient, content_type: str) -> None:
    response = client.post("/v1/search", content=b'{"query": "who?"}', headers={"Content-Type": content_type})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/answer", b'{"question": "half \\ud83d of it"}', "question: holds half a character, \\ud83d, "),
        ("/v1/search", b'{"query": "\\udc00"}', "query: holds half a character, \\udc00, "),
        ("/v1/answer", b'{"question": "caf\xe9"}', "question: holds the byte 0xe9, which is not UTF-8 (character 4)"),
        ("/v1/search", b'{"query": "\xff\xfe"}', "query: holds the byte 0xff, which is not UTF-8 (character 1)"),
        ("/v1/answer", b'{"question": "who?", "\\ud83d": 1}', "body: the name of a field holds half a character"),
        ("/v1/answer", b'{"question": ["a", {"b": "\\ud83d"}]}', "question.1.b: holds half a character"),
        ("/v1/answer", b'{"question": "who?", "k": NaN}', "k: is nan, which is no number of JSON"),
        ("/v1/search", b'{"query": "who?", "k": -Infinity}', "k: is -inf, which is no number of JSON"),
        ("/v1/search", b'{"query": "who?", "k": 1e999}', "k: is inf, which is no number of JSON"),
        ("/v1/search", b'{"query": "who?", "k": ' + b"1" * 5000 + b"}", "body: holds a number that cannot be read"),
        ("/v1/search", b"[" * 100_000, "body: is nested too deeply"),
        ("/v1/search", b"\xff\xfe{\x00}\x00", "body: is not valid JSON"),
        ("/v1/search", b"", "body: is required"),
    ],
)
def test_what_json_does_not_know_is_422_and_names_the_field(
    client: TestClient, path: str, body: bytes, message: str
) -> None:
    response = client.post(path, content=body, headers=JSON)
    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith(message)


def test_a_whole_character_written_as_two_halves_is_text(client: TestClient) -> None:
    response = client.post("/v1/answer", content=b'{"question": "a \\ud83d\\ude00?"}', headers=JSON)
    assert response.json()["question"] == "a \U0001f600?"


def test_a_field_that_comes_twice_counts_as_its_last(client: TestClient) -> None:
    response = client.post("/v1/answer", content=b'{"question": "who?", "question": "what?"}', headers=JSON)
    assert response.json()["question"] == "what?"


def test_a_byte_order_mark_before_a_body_is_passed_over() -> None:
    assert read_json("\ufeff{}".encode()) == {}


@pytest.mark.parametrize("value", [None, True, 3, -1.5, "", "é", [[]], {"a": {"b": [1, "c"]}}])
def test_what_is_json_is_read_as_it_is(value: object) -> None:
    assert read_json(json.dumps(value).encode()) == value
