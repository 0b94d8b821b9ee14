"""A batch: each line is answered as if it had come alone, in the order of the lines, and a wrong line is its own error."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from ragray.config import ServeConfig
from ragray.generate.orchestrator import QuestionRequest, ServedAnswer
from ragray.serve.app import create_app
from ragray.serve.batch.lines import BatchRequest, WrongLine, read_lines
from ragray.serve.batch.route import JSONL, SIDE_BY_SIDE
from tests.serve.test_app import Failing
from tests.serve.test_guard import scope_of

ASK = {"question": "Which river flows through Hamburg?"}
CHAT = {"model": "run-1", "messages": [{"role": "user", "content": ASK["question"]}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/answer": ASK,
    "/v1/search": {"query": "owls"},
    "/v1/chat/completions": CHAT,
    "/v1/responses": {"model": "run-1", "input": ASK["question"]},
    "/v1/embeddings": {"model": "hash-64", "input": "owls"},
    "/v1/rerank": {"model": "none", "query": "owls", "documents": ["a", "b"]},
    "/retrieval": {"knowledge_id": "ragray", "query": "owls", "retrieval_setting": {"top_k": 2}},
}
VOLATILE = {"id", "created", "created_at", "timings"}


def line(custom_id: str, url: str, body: Mapping[str, Any], **fields: Any) -> str:
    return json.dumps({"custom_id": custom_id, "url": url, "body": body, **fields})


def batch(client: TestClient, *lines: str, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    sent = {"Content-Type": JSONL, **(headers or {})}
    response = client.post("/v1/batch", content="\n".join(lines), headers=sent)
    assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, JSONL), response.text
    return [json.loads(each) for each in response.text.splitlines()]


def steady(value: Any) -> Any:
    """Return a body without what differs from one answer to the next."""
    if isinstance(value, dict):
        return {key: steady(item) for key, item in value.items() if key not in VOLATILE or isinstance(item, list)}
    return [steady(item) for item in value] if isinstance(value, list) else value


def test_every_line_gets_what_its_request_alone_gets_in_the_order_of_the_lines(river: TestClient) -> None:
    results = batch(river, *(line(url, url, body, method="POST") for url, body in BODIES.items()))
    assert [result["custom_id"] for result in results] == list(BODIES)
    for result, (url, body) in zip(results, BODIES.items(), strict=True):
        alone = river.post(url, json=body)
        assert result["error"] is None
        assert result["response"]["status_code"] == alone.status_code
        assert steady(result["response"]["body"]) == steady(alone.json())
        assert len(result["response"]["request_id"]) == 32
    assert (
        len({result["response"]["request_id"] for result in results}) == len({r["id"] for r in results}) == len(BODIES)
    )


@pytest.mark.parametrize(
    ("wrong", "custom_id", "message"),
    [
        ("{", None, "line 2: body: is not valid JSON"),
        ("[]", None, "line 2: body: "),
        (line("x", "/v1/batch", ASK), "x", "line 2: url: "),
        (line("x", "/v1/models", {}, method="GET"), "x", "line 2: method: "),
        (line("", "/v1/answer", ASK), "", "line 2: custom_id: must not be empty"),
        (line("first", "/v1/answer", ASK), "first", "line 2: custom_id: 'first' is that of line 1 already"),
        (line("x", "/v1/answer", {**ASK, "stream": True}), "x", "line 2: body.stream: is not possible in a batch"),
        (line("x", "/v1/answer", ASK, headers={}), "x", "line 2: headers: is not a known field"),
        ('{"custom_id": "x", "url": "/v1/answer"}', "x", "line 2: body: is required"),
    ],
)
def test_a_line_that_is_no_request_is_an_error_of_its_own(
    river: TestClient, wrong: str, custom_id: str | None, message: str
) -> None:
    before, result, after = batch(
        river, line("first", "/v1/answer", ASK), wrong, "", line("last", "/v1/search", {"query": "owls"})
    )
    assert (before["response"]["status_code"], after["response"]["status_code"]) == (200, 200)
    assert (result["custom_id"], result["response"], result["error"]["code"]) == (custom_id, None, "invalid_request")
    assert result["error"]["message"].startswith(message)


def test_an_error_of_a_route_is_the_response_of_its_line(river: TestClient) -> None:
    [result] = batch(river, line("a", "/v1/answer", {"question": " "}))
    assert result["response"]["status_code"] == 422
    assert result["response"]["body"]["error"]["message"] == "question: must not be empty"


def test_a_batch_that_is_no_jsonl_or_holds_nothing_is_refused(river: TestClient) -> None:
    as_json = river.post("/v1/batch", json=[])
    assert (as_json.status_code, "expected application/jsonl" in as_json.json()["error"]["message"]) == (415, True)
    empty = river.post("/v1/batch", content="\n\n", headers={"Content-Type": JSONL})
    assert (empty.status_code, empty.json()["error"]["message"][:23]) == (422, "body: holds no request,")


def test_lines_are_counted_with_those_that_are_blank() -> None:
    first, wrong, last = read_lines(b'\n{"custom_id": "a", "url": "/v1/search", "body": {}}\r\n\nx\n' + last_line())
    assert isinstance(first, BatchRequest) and isinstance(last, BatchRequest) and isinstance(wrong, WrongLine)
    assert wrong.failure.message.startswith("line 4: ")


def last_line() -> bytes:
    return b'{"custom_id": "\xc3\xa4\xe2\x80\xa8", "url": "/v1/search", "body": {}}'


class Counting(Failing):
    """Answers slowly, and knows how many it is answering."""

    def __init__(self, answer_s: float) -> None:
        super().__init__(AssertionError("not reached"))
        self.num_open, self.most, self._answer_s = 0, 0, answer_s

    async def answer(self, request: QuestionRequest) -> ServedAnswer:
        self.num_open += 1
        self.most = max(self.most, self.num_open)
        try:
            await asyncio.sleep(self._answer_s)
            raise ValueError
        finally:
            self.num_open -= 1


def many(number: int) -> bytes:
    return "\n".join(line(str(each), "/v1/answer", ASK) for each in range(number)).encode()


async def post_many(app: Any, number: int) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        return await client.post("/v1/batch", content=many(number), headers={"Content-Type": JSONL})


def test_a_few_lines_are_answered_at_a_time() -> None:
    answerer = Counting(0.001)
    response = asyncio.run(post_many(create_app(answerer, ServeConfig()), 5 * SIDE_BY_SIDE))
    assert (answerer.most, len(response.text.splitlines())) == (SIDE_BY_SIDE, 5 * SIDE_BY_SIDE)


def test_lines_that_are_not_answered_within_the_time_of_the_batch_say_so() -> None:
    answerer = Counting(60)
    response = asyncio.run(post_many(create_app(answerer, ServeConfig(request_timeout_s=0.2)), SIDE_BY_SIDE + 3))
    results = [json.loads(each) for each in response.text.splitlines()]
    assert len(results) == SIDE_BY_SIDE + 3
    late = [each["error"]["code"] if each["error"] else each["response"]["body"]["error"]["type"] for each in results]
    assert (set(late), answerer.num_open) == ({"timeout"}, 0)


def test_a_client_that_leaves_ends_the_answering_of_all_lines() -> None:
    async def scenario() -> None:
        answerer, before = Counting(60), len(asyncio.all_tasks())
        app = create_app(answerer, ServeConfig())
        body = {"type": "http.request", "body": many(20), "more_body": False}

        async def receive() -> dict[str, Any]:
            if body:
                request = dict(body)
                body.clear()
                return request
            while answerer.num_open < SIDE_BY_SIDE:
                await asyncio.sleep(0)
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            pass

        scope = scope_of("/v1/batch")
        headers = [(b"content-type", JSONL.encode())]
        await app({**scope, "method": "POST", "headers": headers}, receive, send)
        assert (answerer.num_open, len(asyncio.all_tasks())) == (0, before)

    asyncio.run(scenario())
