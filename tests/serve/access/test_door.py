"""The door: without a key nothing but the probes answers, whatever the route, the method, the header."""

import asyncio
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ragray.config import Config, ServeConfig
from ragray.errors import ConfigError
from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.retrieve.follow import FollowedRetriever
from ragray.retrieve.load import SnapshotOpener
from ragray.retrieve.shelf import IndexSource
from ragray.serve.access.keys import add_key, revoke_key
from ragray.serve.answerer import REFUSED, Health
from ragray.serve.app import create_app
from ragray.serve.guard import own_path
from ragray.serve.local import LocalAnswerer
from tests.serve.access.teams import bearer, client_of

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
PROBES = {"/healthz", "/readyz"}
OPEN = {*PROBES, "/", "/docs"}
OPENAI = {"/v1/chat/completions", "/v1/embeddings", "/v1/rerank", "/v1/models"}
SEARCH = {"query": "where is the apple stored?"}


def paths_of(routes: Iterable[Any]) -> Iterator[str]:
    """Yield the path of every route, those of included routers too, whether OpenAPI lists it or not."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        yield from paths_of(inner.routes) if inner else [route.path]


def all_paths(client: TestClient) -> set[str]:
    app = client.app
    assert isinstance(app, FastAPI)
    return set(paths_of(app.routes))


def test_the_walk_finds_every_route(teams: TestClient, secrets: dict[str, str]) -> None:
    listed = teams.get("/openapi.json", headers=bearer(secrets["all"])).json()["paths"]
    assert set(listed) | {"/", "/docs", "/openapi.json"} <= all_paths(teams)


@pytest.mark.parametrize("method", METHODS)
def test_every_route_is_closed_to_every_method_without_a_key(teams: TestClient, method: str) -> None:
    unknown = {"/nothing", "/v1/nothing", "/healthz/", "//healthz", "/v1/healthz", "/readyz/x", "/metrics", "/mcp"}
    for path in (all_paths(teams) - OPEN) | unknown:
        response = teams.request(method, f"http://testserver{path}", follow_redirects=False)
        assert (path, response.status_code, response.headers["www-authenticate"]) == (path, 401, "Bearer")


def test_the_probes_need_no_key(teams: TestClient) -> None:
    assert [teams.get(path).status_code for path in sorted(PROBES)] == [200, 200]


def test_files_are_named_only_to_those_who_bring_a_key() -> None:
    health = Health("s1", "run-1", index="/data/index", last_error="/data/index/x: missing")
    assert health.for_strangers() == Health("s1", "run-1", last_error=REFUSED)


def test_the_index_is_told_with_a_key_and_kept_from_strangers(
    teams_index: Path, keys_file: Path, secrets: dict[str, str]
) -> None:
    config = Config(serve=ServeConfig(keys_file=str(keys_file)))
    retriever = FollowedRetriever(IndexSource(str(teams_index)), SnapshotOpener(config))
    answerer = LocalAnswerer(retriever, FirstSentenceGenerator(), k=1, with_keys=True)
    with TestClient(create_app(answerer, config.serve)) as client:
        told = [
            client.get("/readyz", headers=each).json()["index"] for each in (bearer(secrets["red"]), {}, bearer("x"))
        ]
    answerer.close()
    assert told == [str(teams_index), "", ""]


@pytest.mark.parametrize(
    ("header", "code", "dify"),
    [
        ("", "no_api_key", 1001),
        ("Bearer", "no_api_key", 1001),
        ("Bearer  ", "no_api_key", 1001),
        ("Basic YTpi", "no_api_key", 1001),
        ("sk-ragray-x", "no_api_key", 1001),
        ("Bearer sk-ragray-x", "invalid_api_key", 1002),
        ("Bearer sk-ragray-x y", "invalid_api_key", 1002),
    ],
)
def test_a_refusal_has_the_form_of_its_routes_errors(teams: TestClient, header: str, code: str, dify: int) -> None:
    headers = {"Authorization": header} if header else {}
    for path in OPENAI:
        error = teams.post(path, json={}, headers=headers).json()["error"]
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, code)
    for path in ("/v1/search", "/v1/answer", "/retrieve", "/nothing"):
        assert teams.post(path, json={}, headers=headers).json()["error"]["type"] == "unauthorized"
    assert teams.post("/retrieval", json={}, headers=headers).json()["error_code"] == dify


def test_a_key_opens_and_the_scheme_may_be_written_in_any_case(teams: TestClient, secrets: dict[str, str]) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        response = teams.post("/v1/search", json=SEARCH, headers={"Authorization": f"{scheme} {secrets['all']}"})
        assert response.status_code == 200
    assert teams.get("/nothing", headers=bearer(secrets["all"])).status_code == 404


def test_a_refused_body_is_not_looked_at(teams: TestClient) -> None:
    assert teams.post("/v1/search", content=b"x" * 60_000).status_code == 401


def test_a_websocket_is_closed(teams: TestClient) -> None:
    sent: list[dict[str, Any]] = []

    async def connect() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/healthz", "headers": [], "query_string": b"", "subprotocols": []}
        await teams.app(scope, receive, send)  # type: ignore[arg-type] # any ASGI application

    asyncio.run(connect())
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_the_page_and_its_files_need_no_key_and_what_they_ask_for_does(teams: TestClient) -> None:
    page = teams.get("/")
    files = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
    assert page.status_code == teams.get("/docs").status_code == 200
    assert files
    assert {teams.get(f"/{file}").status_code for file in files} == {200}
    assert teams.get("/openapi.json").status_code == teams.post("/v1/search", json=SEARCH).status_code == 401


def test_openapi_names_the_scheme_of_every_route_that_needs_a_key(teams: TestClient, secrets: dict[str, str]) -> None:
    document = teams.get("/openapi.json", headers=bearer(secrets["all"])).json()
    [(name, scheme)] = document["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation.get("security", []) == ([] if path in PROBES else [{name: []}])
            assert path in PROBES or {"401", "429"} <= set(operation["responses"])


def test_a_browsers_preflight_is_answered_without_a_key_and_its_pages_read_the_limits(
    teams_index: Path, keys_file: Path, secrets: dict[str, str]
) -> None:
    origin = {"Origin": "https://app.example"}
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    settings = ServeConfig(keys_file=str(keys_file), cors_origins=("https://app.example",))
    with client_of(teams_index, settings) as client:
        assert client.options("/v1/search", headers=origin | asking).status_code == 200
        refused = client.post("/v1/search", json=SEARCH, headers=origin)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://app.example")
        assert "x-ratelimit-remaining-requests" in refused.headers["access-control-expose-headers"].lower()


def test_a_revoked_and_an_expired_key_open_nothing(teams_index: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    old = add_key(file, "old")
    text = file.read_text()
    file.write_text(text.replace('"expires": null', '"expires": "2020-01-01T00:00:00Z"'))
    gone = add_key(file, "gone")
    revoke_key(file, "gone")
    with client_of(teams_index, ServeConfig(keys_file=str(file))) as client:
        refused = [client.post("/v1/search", json=SEARCH, headers=bearer(secret)) for secret in (old, gone)]
    assert [response.status_code for response in refused] == [401, 401]
    assert "expired at 2020-01-01" in refused[0].json()["error"]["message"]


def test_a_service_whose_keys_cannot_be_read_does_not_begin(teams_index: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="no such file of keys"),
        client_of(teams_index, ServeConfig(keys_file=str(tmp_path / "none"))),
    ):
        pass


def test_past_its_limit_a_key_is_refused_with_the_time_to_wait(teams_index: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    headers = bearer(add_key(file, "ann", requests_per_minute=2, tokens_per_minute=1000))
    with client_of(teams_index, ServeConfig(keys_file=str(file))) as client:
        first = client.post("/v1/answer", json={"question": "where is the fig?"}, headers=headers)
        assert (first.status_code, first.headers["x-ratelimit-remaining-requests"]) == (200, "1")
        assert int(first.headers["x-ratelimit-remaining-tokens"]) < 1000
        assert client.post("/v1/answer", json={}, headers=headers).status_code == 422  # which counts, too
        refused = client.post("/v1/chat/completions", json={}, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert client.post("/retrieval", json={}, headers=headers).json()["error_code"] == 429


@pytest.mark.parametrize("stream", [False, True])
def test_the_tokens_of_an_answer_are_taken_from_the_keys_allowance(
    teams_index: Path, tmp_path: Path, stream: bool
) -> None:
    file = tmp_path / "keys.json"
    headers = bearer(add_key(file, "ann", tokens_per_minute=1))
    body = {"model": "run-1", "messages": [{"role": "user", "content": "where is the fig?"}], "stream": stream}
    with client_of(teams_index, ServeConfig(keys_file=str(file))) as client:
        assert client.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
        refused = client.post("/v1/chat/completions", json=body, headers=headers)
    assert (refused.status_code, "tokens per minute" in refused.json()["error"]["message"]) == (429, True)
    assert int(refused.headers["retry-after"]) > 60


@pytest.mark.parametrize(
    ("path", "root", "own"),
    [
        ("/healthz", "", "/healthz"),
        ("/rag/healthz", "/rag", "/healthz"),
        ("/rag/healthz", "/rag/", "/healthz"),
        ("/ragged/healthz", "/rag", "/ragged/healthz"),
        ("/healthz", "/", "/healthz"),
    ],
)
def test_a_path_is_read_below_the_prefix_of_the_service(path: str, root: str, own: str) -> None:
    assert own_path({"path": path, "root_path": root}) == own
