"""The HTTP application, with fakes behind it: what a client sends, what it gets, whatever happens behind."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from ragray.config import ServeConfig
from ragray.errors import EncoderMismatchError, OverloadedError, ServingError
from ragray.generate.engine import Piece
from ragray.generate.engines.fake import FirstSentenceGenerator, FirstSentenceRunner
from ragray.generate.orchestrator import QuestionRequest, ServedAnswer
from ragray.retrieve.retriever import AS_SET, SearchOptions
from ragray.serve.access.keys import add_key
from ragray.serve.answerer import Health
from ragray.serve.app import create_app
from ragray.serve.local import LocalAnswerer
from ragray.types import Answer, Hit, Passage, RetrievalResult

HITS = (
    Hit(Passage("paris#0", "The Seine flows through Paris. It is long.", "Paris", "paris"), 0.75),
    Hit(Passage("rome#0", "The Tiber flows through Rome.", "Rome", "rome"), 0.5),
)


class FixedRetriever:
    """Finds the same passages for every query."""

    snapshot = "s1"

    def search(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        return [RetrievalResult("s1", HITS[:k]) for _ in queries]


class Failing:
    """An answerer that raises one error wherever it is asked."""

    def __init__(self, err: Exception, *, after: int = 0) -> None:
        self._err = err
        self._after = after

    async def search(self, query: str, *, k: int | None) -> RetrievalResult:
        raise self._err

    async def answer(self, request: QuestionRequest) -> ServedAnswer:
        raise self._err

    async def stream(self, request: QuestionRequest) -> AsyncGenerator[str | ServedAnswer, None]:
        for _ in range(self._after):
            yield "piece"
        raise self._err

    async def health(self) -> Health:
        raise self._err


class Sleeping(Failing):
    """An answerer that takes longer than anybody waits."""

    def __init__(self) -> None:
        super().__init__(AssertionError("not reached"))

    async def answer(self, request: QuestionRequest) -> ServedAnswer:
        await asyncio.sleep(60)
        raise AssertionError

    async def stream(self, request: QuestionRequest) -> AsyncGenerator[str | ServedAnswer, None]:
        yield "piece"
        await asyncio.sleep(60)


class Endless(FirstSentenceGenerator):
    """A generator that writes until it is stopped."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def open_runner(self) -> FirstSentenceRunner:
        return EndlessRunner(self.stopped)


class EndlessRunner(FirstSentenceRunner):
    def __init__(self, stopped: threading.Event) -> None:
        super().__init__()
        self._stopped = stopped

    def step(self) -> list[tuple[int, Piece]]:
        return [(key, "word ") for key in self._rest]

    def remove(self, key: int) -> None:
        super().remove(key)
        self._stopped.set()


@pytest.fixture
def client() -> Iterator[TestClient]:
    answerer = LocalAnswerer(FixedRetriever(), FirstSentenceGenerator(), k=2, run="run")
    with TestClient(create_app(answerer, ServeConfig(max_question_chars=100))) as client:
        yield client
    answerer.close()


def client_of(answerer: Failing, config: ServeConfig | None = None) -> TestClient:
    return TestClient(create_app(answerer, config or ServeConfig()), raise_server_exceptions=False)


def events(text: str) -> list[tuple[str, dict[str, object]]]:
    """Read server-sent events as (name, data)."""
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((lines.get("event", ""), json.loads(lines["data"])))
    return found


def test_an_answer_carries_its_sources_snapshot_run_and_timings(client: TestClient) -> None:
    body = client.post("/v1/answer", json={"question": "Which river?"}).json()
    assert body["answer"] == "The Seine flows through Paris."
    assert (body["question"], body["snapshot"], body["run"]) == ("Which river?", "s1", "run")
    assert [(c["number"], c["id"], c["weight"]) for c in body["citations"]] == [(1, "paris#0", 1.0), (2, "rome#0", 0.0)]
    assert body["timings"]["retrieve_s"] >= 0 <= body["timings"]["generate_s"]


def test_k_limits_the_passages_of_an_answer_and_of_a_search(client: TestClient) -> None:
    assert len(client.post("/v1/answer", json={"question": "Which river?", "k": 1}).json()["citations"]) == 1
    assert len(client.post("/v1/search", json={"query": "river", "k": 1}).json()["hits"]) == 1
    assert len(client.post("/v1/search", json={"query": "river"}).json()["hits"]) == 2


def test_closed_book_answers_have_no_sources_and_no_snapshot(client: TestClient) -> None:
    body = client.post("/v1/answer", json={"question": "Which river?", "closed_book": True}).json()
    assert (body["answer"], body["citations"], body["snapshot"]) == ("I do not know.", [], "")


def test_a_search_returns_passages_and_the_snapshot(client: TestClient) -> None:
    body = client.post("/v1/search", json={"query": "river"}).json()
    assert body["snapshot"] == "s1"
    assert [hit["document_id"] for hit in body["hits"]] == ["paris", "rome"]


def test_streamed_pieces_join_to_the_answer_that_comes_without_stream(client: TestClient) -> None:
    whole = client.post("/v1/answer", json={"question": "Which river?"}).json()
    response = client.post("/v1/answer", json={"question": "Which river?", "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    *pieces, (name, last) = events(response.text)
    assert "".join(str(data["delta"]) for _, data in pieces) == whole["answer"]
    assert name == "answer"
    assert {**last, "timings": 0} == {**whole, "timings": 0}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "question: is required"),
        ({"question": "  "}, "question: must not be empty"),
        ({"question": "x" * 101}, "question: has 101 characters, at most 100 are allowed"),
        ({"question": 3}, "question: Input should be a valid string"),
        ({"question": "who?", "k": 0}, "k: Input should be greater than or equal to 1"),
        ({"question": "who?", "kk": 1}, "kk: is not a known field"),
        ([], "body: Input should be"),
    ],
)
def test_an_invalid_request_is_refused_with_the_name_of_the_field(
    client: TestClient, body: object, message: str
) -> None:
    response = client.post("/v1/answer", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["type"] == "invalid_request"
    assert response.json()["error"]["message"].startswith(message)


def test_a_body_that_is_no_json_or_no_text_is_refused(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    broken = client.post("/v1/search", content='{"query": ', headers=headers)
    assert (broken.status_code, broken.json()["error"]["message"][:23]) == (422, "body: is not valid JSON")
    surrogate = client.post("/v1/search", content='{"query": "\\ud800"}', headers=headers)
    assert (surrogate.status_code, surrogate.json()["error"]["message"][:6]) == (422, "query:")


def test_an_unknown_path_and_method_have_the_same_error_body(client: TestClient) -> None:
    assert client.get("/v2").json()["error"] == {"type": "not_found", "message": "Not Found"}
    assert client.get("/v1/answer").json()["error"]["type"] == "method_not_allowed"


@pytest.mark.parametrize("stream", [False, True])
def test_overload_is_429_with_the_time_to_wait(stream: bool) -> None:
    response = client_of(Failing(OverloadedError("64 requests are waiting"))).post(
        "/v1/answer", json={"question": "who?", "stream": stream}
    )
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert response.json() == {"error": {"type": "overloaded", "message": "64 requests are waiting"}}


@pytest.mark.parametrize(
    ("err", "status"), [(ServingError("a replica died"), 503), (EncoderMismatchError("two encoders"), 500)]
)
def test_an_error_of_ragray_keeps_its_message(err: Exception, status: int) -> None:
    response = client_of(Failing(err)).post("/v1/search", json={"query": "who?"})
    assert (response.status_code, response.json()["error"]["message"]) == (status, str(err))


@pytest.mark.parametrize("stream", [False, True])
def test_an_unexpected_error_is_500_with_the_id_of_the_log_entry(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    response = client_of(Failing(KeyError("secret"))).post("/v1/answer", json={"question": "who?", "stream": stream})
    assert response.status_code == 500
    message = response.json()["error"]["message"]
    assert "secret" not in message
    [record] = [record for record in caplog.records if record.name == "ragray.serve"]
    assert record.getMessage().removeprefix("error ") in message
    assert "secret" in str(record.exc_info)


def test_an_error_in_the_middle_of_a_stream_is_its_last_event() -> None:
    response = client_of(Failing(ServingError("a replica died"), after=2)).post(
        "/v1/answer", json={"question": "who?", "stream": True}
    )
    assert response.status_code == 200
    assert events(response.text) == [
        ("", {"delta": "piece"}),
        ("", {"delta": "piece"}),
        ("error", {"error": {"type": "unavailable", "message": "a replica died"}}),
    ]


def test_a_request_that_takes_too_long_is_given_up() -> None:
    client = client_of(Sleeping(), ServeConfig(request_timeout_s=0.1))
    whole = client.post("/v1/answer", json={"question": "who?"})
    assert (whole.status_code, whole.json()["error"]["type"]) == (504, "timeout")
    streamed = client.post("/v1/answer", json={"question": "who?", "stream": True})
    assert [name for name, _ in events(streamed.text)] == ["", "error"]


def test_a_ready_service_says_what_is_served(client: TestClient) -> None:
    body = client.get("/readyz").json()
    assert (body["status"], body["snapshot"], body["run"]) == ("ok", "s1", "run")


@pytest.mark.parametrize("body", [{"question": "who?"}, {"question": "who?", "stream": True}, {"query": "who?"}])
def test_a_response_names_its_snapshot_and_run_in_its_headers(client: TestClient, body: dict[str, object]) -> None:
    headers = client.post("/v1/search" if "query" in body else "/v1/answer", json=body).headers
    assert (headers["x-ragray-snapshot"], headers["x-ragray-run"]) == ("s1", "run")


def test_a_closed_book_answer_names_no_snapshot_and_what_is_no_answer_neither(client: TestClient) -> None:
    closed = client.post("/v1/answer", json={"question": "who?", "closed_book": True}).headers
    assert ("x-ragray-snapshot" in closed, closed["x-ragray-run"]) == (False, "run")
    assert not {"x-ragray-snapshot", "x-ragray-run"} & set(client.get("/v1/models").headers)


def test_an_unhealthy_service_is_503_with_the_reason() -> None:
    response = client_of(Failing(ServingError("no index is loaded"))).get("/readyz")
    assert (response.status_code, response.json()["error"]["message"]) == (503, "no index is loaded")


def test_headers_name_the_snapshot_and_where_the_time_went(client: TestClient) -> None:
    answer = client.post("/v1/answer", json={"question": "Which river?"}).headers
    search = client.post("/v1/search", json={"query": "river"}).headers
    assert (answer["x-ragray-snapshot"], answer["x-ragray-run"], search["x-ragray-snapshot"]) == ("s1", "run", "s1")
    for headers, stages in ((answer, ["retrieve", "generate"]), (search, ["retrieve"])):
        assert [part.partition(";dur=")[0] for part in headers["server-timing"].split(", ")] == stages
        assert len(headers["x-request-id"]) == 32


EVERYWHERE = {413, 415, 500, 503, 504}
"""Statuses that every POST can have, whatever it does."""


@pytest.mark.parametrize("with_keys", [False, True])
def test_every_route_documents_the_statuses_that_it_can_have(tmp_path: Path, with_keys: bool) -> None:
    keys = tmp_path / "keys.json"
    add_key(keys, "all")
    app = create_app(Failing(AssertionError()), ServeConfig(keys_file=str(keys) if with_keys else ""))
    for path, methods in app.openapi()["paths"].items():
        for method, route in methods.items():
            known = set(map(int, route["responses"]))
            wanted = {200} | (EVERYWHERE | {400} if method == "post" else set())
            wanted |= {401, 429} if with_keys and route["tags"] != ["operate"] else set()
            wanted |= (
                {404} if path in ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank") else set()
            )
            assert wanted <= known, (path, method)


def test_openapi_lists_the_routes_and_one_error_body(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    openai = {f"/v1/{name}" for name in ("chat/completions", "responses", "embeddings", "rerank", "models")}
    own = {"/v1/answer", "/v1/search", "/v1/batch", "/healthz", "/readyz", "/metrics"}
    assert set(paths) == own | openai | {"/retrieve", "/retrieval"}
    refused = paths["/v1/answer"]["post"]["responses"]["422"]["content"]["application/json"]["schema"]
    assert refused["$ref"].endswith("/ErrorResponse")
    assert "text/event-stream" in paths["/v1/answer"]["post"]["responses"]["200"]["content"]
    assert client.get("/docs").status_code == 200


def test_the_local_answerer_refuses_more_than_it_may_hold() -> None:
    answerer = LocalAnswerer(FixedRetriever(), FirstSentenceGenerator(), k=2, max_waiting=2)

    async def ask(times: int) -> list[RetrievalResult | BaseException]:
        return await asyncio.gather(*(answerer.search("who?", k=None) for _ in range(times)), return_exceptions=True)

    results = asyncio.run(ask(5))
    answerer.close()
    assert [type(result) for result in results] == [RetrievalResult] * 2 + [OverloadedError] * 3


def test_a_client_that_goes_away_stops_the_writing() -> None:
    generator = Endless()
    answerer = LocalAnswerer(FixedRetriever(), generator, k=2)
    app = create_app(answerer, ServeConfig())
    sent: list[str] = []

    async def go_away_after_the_first_piece() -> None:
        request = {"type": "http.request", "body": b'{"question": "who?", "stream": true}', "more_body": False}
        gone = asyncio.Event()

        async def receive() -> dict[str, object]:
            if request:
                return _take(request)
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            sent.append(str(message["type"]))
            if message["type"] == "http.response.body":
                gone.set()

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/answer", "headers": headers, "query_string": b""}
        await app(scope, receive, send)

    asyncio.run(go_away_after_the_first_piece())
    assert generator.stopped.wait(5)
    answerer.close()
    assert sent[:2] == ["http.response.start", "http.response.body"]


def _take(message: dict[str, object]) -> dict[str, object]:
    """Return a message once: afterwards it is empty."""
    taken = dict(message)
    message.clear()
    return taken


def test_answers_of_the_local_answerer_are_those_of_the_pipeline() -> None:
    from ragray.generate.pipeline import Pipeline

    answerer = LocalAnswerer(FixedRetriever(), FirstSentenceGenerator(), k=2)
    served = asyncio.run(answerer.answer(QuestionRequest("Which river?")))
    answerer.close()
    [expected] = Pipeline(FixedRetriever(), FirstSentenceGenerator(), k=2).answer(["Which river?"])
    assert isinstance(served.answer, Answer)
    assert served.answer == expected
