"""Before Ray's proxy, which is played here: its own plain errors, and the application's responses that it passes on."""

import asyncio
import json

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ragray.config import ServeConfig
from ragray.errors import ServingError
from ragray.serve.app import create_app
from ragray.serve.edge import Edge, middlewares
from tests.serve.test_app import Failing
from tests.serve.test_guard import Sink, once, scope_of

APPLICATION = create_app(
    Failing(ServingError("the reason")), ServeConfig(max_body_bytes=1000, cors_origins=("https://app.example",))
)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing, as the proxy does when the replica that worked on a request dies."""


def plain(status: int) -> ASGIApp:
    return PlainTextResponse("Path '/x' not found. Ping http://.../-/routes for available routes.", status)


def exchange(app: ASGIApp, path: str, *, method: str = "POST", **headers: str) -> Sink:
    sink = Sink()
    asyncio.run(Edge(app)(scope_of(path, method=method, **headers), once(b"{}"), sink.send))
    return sink


@pytest.mark.parametrize(
    ("app", "status"),
    [
        (plain(404), 503),
        (plain(408), 504),
        (plain(429), 429),
        (plain(500), 503),
        (plain(503), 503),
        (nothing, 503),
    ],
)
def test_errors_of_the_proxy_itself_come_out_as_json(app: ASGIApp, status: int) -> None:
    sink = exchange(app, "/v1/answer")
    assert sink.status == status
    assert set(json.loads(sink.body)["error"]) == {"type", "message"}
    assert (b"retry-after" in dict(sink.messages[0]["headers"])) == (status != 504)


@pytest.mark.parametrize("app", [plain(404), plain(503), nothing])
def test_the_service_is_alive_as_soon_as_the_proxy_is(app: ASGIApp) -> None:
    assert json.loads(exchange(app, "/healthz", method="GET").body) == {"status": "alive"}
    assert exchange(app, "/readyz", method="GET").status == 503


@pytest.mark.parametrize("lost", [plain(500), nothing])
def test_a_request_whose_gateway_ended_before_it_answered_is_sent_once_more_with_its_body(lost: ASGIApp) -> None:
    received: list[bytes] = []

    async def second_answers(scope: Scope, receive: Receive, send: Send) -> None:
        received.append((await receive())["body"])
        await (lost if len(received) == 1 else PlainTextResponse("found"))(scope, receive, send)

    sink = exchange(second_answers, "/v1/answer")
    assert (sink.status, sink.body, received) == (200, b"found", [b"{}", b"{}"])


def test_what_the_application_answers_is_passed_on() -> None:
    direct, passed = Sink(), exchange(APPLICATION, "/v1/nothing")
    asyncio.run(APPLICATION(scope_of("/v1/nothing"), once(b"{}"), direct.send))
    assert (passed.status, passed.body) == (direct.status, direct.body) == (404, passed.body)
    assert b"x-ragray-limits" in dict(direct.messages[0]["headers"])
    assert b"x-ragray-limits" not in dict(passed.messages[0]["headers"])


def test_paths_of_the_proxy_itself_are_left_alone() -> None:
    assert exchange(plain(503), "/-/routes").body.startswith(b"Path")


def test_events_that_break_off_end_with_an_error() -> None:
    async def dies(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'data: {"delta":"the"}\n\n', "more_body": True})

    sink = exchange(dies, "/v1/answer")
    assert sink.body.startswith(b'data: {"delta":"the"}\n\nevent: error\ndata: {"error":{"type":"unavailable",')
    assert sink.messages[-1]["more_body"] is False


def test_the_limits_of_the_application_hold_before_the_proxy_once_it_has_answered() -> None:
    async def scenario() -> None:
        asked = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            asked.append(scope["path"])
            await APPLICATION(scope, receive, send)

        edge, learnt, refused = Edge(app), Sink(), Sink()
        await edge(scope_of("/readyz", method="GET"), once(b""), learnt.send)
        request = scope_of("/v1/answer", content_length="1001", expect="100-continue", origin="https://app.example")
        await edge(request, once(b""), refused.send)
        assert (refused.status, asked) == (413, ["/readyz"])
        headers = dict(refused.messages[0]["headers"])
        assert headers[b"access-control-allow-origin"] == b"https://app.example"

    asyncio.run(scenario())


def test_the_middlewares_are_what_serve_accepts() -> None:
    from ray.serve._private.http_util import validate_http_proxy_callback_return

    assert validate_http_proxy_callback_return(middlewares())
