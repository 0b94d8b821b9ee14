"""Streamed chat completions: the bytes that a client gets, chunk by chunk, and what an error in their midst is."""

import json
from collections.abc import AsyncGenerator
from typing import Any

from fastapi.testclient import TestClient

from ragray.config import ServeConfig
from ragray.errors import OverloadedError, ServingError
from ragray.generate.orchestrator import NOTHING_FOUND, Found, QuestionRequest, ServedAnswer
from ragray.serve.app import create_app
from tests.serve.openai.test_chat import ASK, ELBE, chat
from tests.serve.river import SNAPSHOT
from tests.serve.test_app import Failing

CHUNKS = ("Hamburg", " lies", " [1", "2]", " at", " the Elbe", " [")


class Breaking(Failing):
    """An answerer that breaks after some pieces."""

    run, model, numbered = "", "base", False

    def __init__(self, *pieces: str, err: Exception) -> None:
        super().__init__(err)
        self._pieces = pieces

    async def find(self, request: QuestionRequest) -> Found:
        return Found(NOTHING_FOUND, 0.0)

    async def write(self, request: QuestionRequest, found: Found) -> AsyncGenerator[str | ServedAnswer, None]:
        for piece in self._pieces:
            yield piece
        raise self._err


def stream_of(client: TestClient, **fields: Any) -> tuple[list[dict[str, Any]], str]:
    """Return the chunks of a stream, and its last line."""
    response = chat(client, stream=True, **fields)
    assert response.headers["content-type"].startswith("text/event-stream")
    *lines, last = response.text.removesuffix("\n\n").split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines], last


def broken_stream(*pieces: str, err: Exception) -> Any:
    client = TestClient(create_app(Breaking(*pieces, err=err), ServeConfig()), raise_server_exceptions=False)
    return client.post("/v1/chat/completions", json={"model": "base", "messages": [ASK], "stream": True})


def test_the_pieces_of_a_stream_join_to_the_answer_that_comes_without_stream(river: TestClient) -> None:
    whole = chat(river).json()
    chunks, last = stream_of(river)
    assert last == "data: [DONE]"
    assert {(chunk["object"], chunk["id"], chunk["model"]) for chunk in chunks} == {
        ("chat.completion.chunk", chunks[0]["id"], "run-1")
    }
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == whole["choices"][0]["message"]["content"] == ELBE
    assert [delta["annotations"] for delta in deltas if "annotations" in delta] == [
        whole["choices"][0]["message"]["annotations"]
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1]["citations"] == whole["citations"]
    assert not any("usage" in chunk for chunk in chunks)


def test_usage_comes_in_a_chunk_of_its_own_where_it_is_asked_for(river: TestClient) -> None:
    chunks, last = stream_of(river, stream_options={"include_usage": True})
    assert last == "data: [DONE]"
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], chat(river).json()["usage"])


def test_a_stream_says_in_its_headers_what_it_is_answered_from(river: TestClient) -> None:
    headers = chat(river, stream=True).headers
    assert (headers["x-ragray-snapshot"], headers["x-ragray-run"]) == (SNAPSHOT, "run-1")
    assert headers["server-timing"].startswith("retrieve;dur=")


def test_an_error_before_the_first_piece_decides_the_status() -> None:
    response = broken_stream(err=OverloadedError("64 requests are waiting"))
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert response.json()["error"] == {
        "message": "64 requests are waiting",
        "type": "rate_limit_error",
        "param": None,
        "code": "overloaded",
    }


def test_an_error_in_the_middle_of_a_stream_is_its_last_event() -> None:
    response = broken_stream("The", " Elbe", err=ServingError("a replica died"))
    *_, last = response.text.removesuffix("\n\n").split("\n\n")
    assert json.loads(last.removeprefix("data: ")) == {
        "error": {"message": "a replica died", "type": "server_error", "param": None, "code": "unavailable"}
    }
    assert "[DONE]" not in response.text


def test_a_marker_never_leaves_even_where_its_halves_come_apart() -> None:
    response = broken_stream(*CHUNKS, err=ServingError("a replica died"))
    lines = response.text.removesuffix("\n\n").split("\n\n")[1:-1]
    deltas = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"]["content"] for line in lines]
    assert "".join(deltas) == "Hamburg lies at the Elbe"


def test_an_answer_without_passages_has_neither_annotations_nor_citations(river: TestClient) -> None:
    chunks, _ = stream_of(river, retrieval={"filter": "lang == fr"})
    assert not any("annotations" in chunk["choices"][0]["delta"] for chunk in chunks)
    assert chunks[-1]["citations"] == []


def test_openapi_describes_the_route_with_its_stream_and_its_errors(river: TestClient) -> None:
    responses = river.get("/openapi.json").json()["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert "text/event-stream" in responses["200"]["content"]
    assert responses["400"]["content"]["application/json"]["schema"]["$ref"].endswith("/OpenAIErrorResponse")
