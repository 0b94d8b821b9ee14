"""Before the routes: bodies that are too large, web pages of other origins, requests that come while the service stops."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from ragray.config import ServeConfig, load_config
from ragray.errors import ConfigError, ServingError
from ragray.generate.orchestrator import QuestionRequest, ServedAnswer
from ragray.serve.app import create_app
from ragray.serve.guard import BodyLimit, Gate
from tests.serve.test_app import Failing, client_of, events

LIMIT = 1000
SMALL = ServeConfig(max_body_bytes=LIMIT)


class Waiting(Failing):
    """An answerer whose answers wait for a word from the test."""

    def __init__(self) -> None:
        super().__init__(ServingError("the word was given"))
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def answer(self, request: QuestionRequest) -> ServedAnswer:
        self.asked.set()
        await self.go.wait()
        raise self._err

    async def stream(self, request: QuestionRequest) -> AsyncGenerator[str | ServedAnswer, None]:
        self.asked.set()
        yield "piece"
        await self.go.wait()
        raise self._err


class Source:
    """A client that sends a body without end, and knows how much of it was taken."""

    def __init__(self, chunk: bytes = b"x" * 100) -> None:
        self._chunk = chunk
        self.taken = 0

    async def receive(self) -> Message:
        self.taken += len(self._chunk)
        return {"type": "http.request", "body": self._chunk, "more_body": True}


def scope_of(path: str, *, method: str = "POST", **headers: str) -> Scope:
    """Describe a request as a server of ASGI does."""
    named = {"content_type": "application/json", **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()]
    return {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}


class Sink:
    """A client that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


def refused(sink: Sink) -> bool:
    error = json.loads(sink.body)["error"]
    return (sink.status, error["type"]) == (413, "too_large") and "1000 bytes" in error["message"]


def test_a_body_that_is_declared_too_large_is_refused_before_it_is_read() -> None:
    source, sink = Source(), Sink()
    app = create_app(Failing(AssertionError()), SMALL)
    asyncio.run(app(scope_of("/v1/answer", content_length="1001"), source.receive, sink.send))
    assert refused(sink)
    assert source.taken == 0


def test_a_body_without_a_length_is_read_to_the_limit_and_no_further() -> None:
    source, sink = Source(), Sink()
    app = create_app(Failing(AssertionError()), SMALL)
    asyncio.run(app(scope_of("/v1/answer"), source.receive, sink.send))
    assert refused(sink)
    assert source.taken == LIMIT + 100


def test_a_body_of_the_limit_is_taken() -> None:
    body = b'{"query": "who?"' + b" " * (LIMIT - 17) + b"}"
    response = client_of(Failing(ServingError("asked")), SMALL).post(
        "/v1/search", content=body, headers={"Content-Type": "application/json"}
    )
    assert (len(body), response.json()["error"]["message"]) == (LIMIT, "asked")


def test_an_application_that_reads_on_after_the_limit_hears_that_the_client_left() -> None:
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not heard or heard[-1] != "http.disconnect":
            heard.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 500, "headers": []})

    sink = Sink()
    asyncio.run(BodyLimit(app, LIMIT)(scope_of("/"), Source().receive, sink.send))
    assert heard == ["http.request"] * 10 + ["http.disconnect"]
    assert refused(sink)


def test_the_rest_of_a_refused_body_is_dropped_for_a_while_so_that_the_client_gets_to_read() -> None:
    source, sink = Source(b"x" * (LIMIT + 1)), Sink()

    async def slow() -> Message:
        await asyncio.sleep(0.001)
        return await source.receive()

    asyncio.run(BodyLimit(_never, LIMIT, linger_s=0.05)(scope_of("/", content_length="2000"), slow, sink.send))
    assert source.taken > LIMIT + 1
    assert [message.get("more_body") for message in sink.messages] == [None, True, False]
    assert refused(sink)


async def _never(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("a refused request reached the application")


ORIGIN = {"Origin": "https://app.example"}


def test_without_origins_no_web_page_may_use_the_service() -> None:
    response = client_of(Failing(ServingError("x"))).post("/v1/search", json={"query": "q"}, headers=ORIGIN)
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [(("https://app.example",), "https://app.example"), (("*",), "*"), (("https://other.example",), None)],
)
def test_pages_of_the_origins_named_may_read_every_response(origins: tuple[str, ...], allowed: str | None) -> None:
    client = client_of(Failing(ServingError("x"), after=1), ServeConfig(cors_origins=origins, max_body_bytes=LIMIT))
    ask = {"question": "who?", "stream": True}
    responses = [
        client.post("/v1/answer", json=ask, headers=ORIGIN),
        client.post("/v1/answer", json={}, headers=ORIGIN),
        client.post("/v1/search", json={"query": "q" * LIMIT}, headers=ORIGIN),
        client.post("/v1/search", content=b"q", headers=ORIGIN),
        client.get("/readyz", headers=ORIGIN),
        client.get("/nowhere", headers=ORIGIN),
    ]
    assert [response.status_code for response in responses] == [200, 422, 413, 415, 503, 404]
    assert {response.headers.get("access-control-allow-origin") for response in responses} == {allowed}
    if allowed:
        assert "Retry-After" in responses[0].headers["access-control-expose-headers"]


def test_a_browser_that_asks_first_is_told_what_it_may_send() -> None:
    asks = {**ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    client = client_of(Failing(ServingError("x")), ServeConfig(cors_origins=("https://app.example",)))
    response = client.options("/v1/answer", headers=asks)
    assert response.status_code == 200
    assert "POST" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-allow-headers"] == "content-type"


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://app.example/page", ""])
def test_an_origin_that_no_browser_sends_is_an_error_of_the_configuration(origin: str) -> None:
    with pytest.raises(ConfigError, match="not an origin, expected scheme://host"):
        load_config(None, [f"serve.cors_origins=['{origin}']"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_closed_gate_refuses_new_requests_and_lets_those_that_are_open_end(stream: bool) -> None:
    async def scenario() -> None:
        answerer, gate, first, late = Waiting(), Gate(), Sink(), Sink()
        app = create_app(answerer, ServeConfig(), gate)
        body = json.dumps({"question": "who?", "stream": stream}).encode()
        answering = asyncio.create_task(app(scope_of("/v1/answer"), once(body), first.send))
        await answerer.asked.wait()
        assert gate.close() == 1
        await app(scope_of("/v1/answer"), once(body), late.send)
        assert late.status == 503
        headers = dict(late.messages[0]["headers"])
        assert (headers[b"retry-after"], headers[b"connection"]) == (b"5", b"close")
        answerer.go.set()
        await answering
        assert b"the word was given" in first.body
        assert gate.num_open == 0

    asyncio.run(scenario())


def test_an_answer_that_is_dropped_is_a_refusal() -> None:
    async def scenario() -> None:
        answerer, gate, sink = Waiting(), Gate(), Sink()
        app = create_app(answerer, ServeConfig(), gate)
        answering = asyncio.create_task(app(scope_of("/v1/answer"), once(b'{"question": "who?"}'), sink.send))
        await answerer.asked.wait()
        gate.drop()
        await answering
        assert (sink.status, gate.num_open) == (503, 0)

    asyncio.run(scenario())


def test_a_service_that_stops_is_alive_and_not_ready() -> None:
    gate = Gate()
    gate.close()
    client = TestClient(create_app(Failing(AssertionError()), ServeConfig(), gate))
    assert client.get("/healthz").json() == {"status": "alive"}
    unready = client.get("/readyz")
    assert (unready.status_code, unready.json()["error"]["message"]) == (503, "the service is stopping")


def test_heads_and_options_are_answered_without_a_body() -> None:
    client = client_of(Failing(ServingError("x")))
    assert [client.head(path).status_code for path in ("/healthz", "/readyz")] == [200, 503]
    assert client.head("/healthz").content == b""
    options = client.options("/v1/answer")
    assert (options.status_code, options.headers["allow"], options.content) == (204, "POST", b"")
    assert client.get("/v1/answer").headers["allow"] == "POST"


def once(body: bytes) -> Receive:
    """Send one body, then stay connected."""
    parts: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        for part in parts:
            return part
        await asyncio.Event().wait()
        raise AssertionError

    return receive


def test_events_hold_no_character_that_clients_take_for_the_end_of_a_line() -> None:
    class Lines(Failing):
        async def stream(self, request: QuestionRequest) -> AsyncGenerator[str | ServedAnswer, None]:
            yield "".join(chr(code) for code in range(1, 0x20)) + "\x7f\x85\u2028\u2029."
            raise self._err

    text = (
        client_of(Lines(ServingError("a\x85b\u2028c"))).post("/v1/answer", json={"question": "q", "stream": True}).text
    )
    assert len(text.splitlines()) == len(text.split("\n")) - 1
    (_, delta), (name, error) = events(text)
    assert str(delta["delta"]).endswith("\x1f\x7f\x85\u2028\u2029.")
    assert (name, error["error"]) == ("error", {"type": "unavailable", "message": "a\x85b\u2028c"})


def test_what_is_refused_before_a_route_has_the_shape_of_its_errors_too() -> None:
    gate = Gate()
    client = TestClient(create_app(Failing(ServingError("not reached")), SMALL, gate))
    huge = {"Content-Length": str(LIMIT + 1), "Content-Type": "application/json"}
    for closed, status in ((False, 413), (True, 503)):
        gate.closed = closed
        for path in ("/v1/chat/completions", "/v1/responses", "/v1/embeddings"):
            refused = client.post(path, headers=huge, content=b"x" * (LIMIT + 1))
            assert (refused.status_code, list(refused.json()["error"])) == (
                status,
                ["message", "type", "param", "code"],
            )
        dify = client.post("/retrieval", headers=huge, content=b"x" * (LIMIT + 1))
        assert (dify.status_code, dify.json()["error_code"]) == (status, status)
        own = client.post("/v1/search", headers=huge, content=b"x" * (LIMIT + 1))
        assert (own.status_code, list(own.json()["error"])) == (status, ["type", "message"])
