"""Chat where passages are numbered: the numbers stay, and each is an annotation with its place; and answers that are drawn."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from ragray.generate.engines.fake import FirstSentenceGenerator
from tests.serve.openai.test_chat import chat, error_of
from tests.serve.river import river_client

ANSWER = "The Elbe flows through Hamburg. [1]"


@pytest.fixture(scope="module")
def numbered(river_index: Path) -> Iterator[TestClient]:
    with river_client(river_index, generator=FirstSentenceGenerator(numbered=True), numbered=True) as client:
        yield client


def test_a_number_in_the_answer_is_an_annotation_with_the_place_of_its_marker(numbered: TestClient) -> None:
    body = chat(numbered).json()
    message = body["choices"][0]["message"]
    assert message["content"] == ANSWER
    [annotation] = message["annotations"]
    cited = annotation["url_citation"]
    assert ANSWER[cited["start_index"] : cited["end_index"]] == "[1]"
    assert cited["url"] == "urn:ragray:passage:elbe%230"
    assert next((c["number"], c["id"]) for c in body["citations"]) == (1, "elbe#0")


def test_a_stream_shows_the_same(numbered: TestClient) -> None:
    lines = chat(numbered, stream=True).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line and "[DONE]" not in line]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == ANSWER
    [noted] = [delta["annotations"] for delta in deltas if delta.get("annotations")]
    assert noted == chat(numbered).json()["choices"][0]["message"]["annotations"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 1, "top_p": 0}, "top_p"),
        ({"top_p": 0.5}, "top_p"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_drawn_so_is_refused_by_name(numbered: TestClient, fields: dict[str, float], param: str) -> None:
    status, _, found, _ = error_of(chat(numbered, **fields))
    assert (status, found) == (400, param)


def test_an_answer_may_be_drawn(numbered: TestClient) -> None:
    assert chat(numbered, temperature=0.7, top_p=0.9, seed=3).status_code == 200
    assert chat(numbered, temperature=0, top_p=1).status_code == 200
