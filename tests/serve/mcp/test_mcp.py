"""The tools `search` and `fetch`, called by the client of the package `mcp`, and what stands before them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from fastapi.testclient import TestClient
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from ragray.config import Config, RetrieveConfig, ServeConfig
from tests.serve.access.teams import bearer, client_of
from tests.serve.river import PASSAGES, river_client

LOCAL = "http://127.0.0.1:8000"
MODES: tuple[Literal["auto", "legacy"], ...] = ("auto", "legacy")
SEARCH = {"name": "search", "arguments": {"query": "owls"}}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": SEARCH}
ACCEPTED = {"Accept": "application/json, text/event-stream"}


@asynccontextmanager
async def connected(
    service: TestClient, mode: Literal["auto", "legacy"] = "auto", secret: str = ""
) -> AsyncIterator[Client]:
    """A client that knows nothing but the address and, perhaps, a key."""
    headers = bearer(secret) if secret else {}
    transport = httpx2.ASGITransport(service.app)
    async with (
        httpx2.AsyncClient(transport=transport, headers=headers) as http,
        Client(streamable_http_client(f"{LOCAL}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def using(service: TestClient, work: Callable[[Client], Awaitable[Any]], **options: Any) -> Any:
    async def connect() -> Any:
        async with connected(service, **options) as client:
            return await work(client)

    return asyncio.run(connect())


def called(service: TestClient, tool: str, arguments: dict[str, Any], **options: Any) -> Any:
    """Return what a tool returned, as data where it did not fail, else as text."""
    result = using(service, lambda client: client.call_tool(tool, arguments), **options)
    [content] = result.content
    if result.is_error:
        return content.text
    assert json.loads(content.text) == result.structured_content
    return result.structured_content


def posted(service: TestClient, **headers: str) -> Any:
    return service.post(f"{LOCAL}/mcp", json=CALL, headers={**ACCEPTED, **headers})


@pytest.mark.parametrize("mode", MODES)
def test_the_tools_say_what_they_take_and_return_and_that_they_only_read(
    river: TestClient, mode: Literal["auto", "legacy"]
) -> None:
    listed = using(river, lambda client: client.list_tools(), mode=mode).tools
    assert {tool.name: list(tool.input_schema["required"]) for tool in listed} == {"search": ["query"], "fetch": ["id"]}
    assert all(tool.annotations.read_only_hint and tool.output_schema for tool in listed)


@pytest.mark.parametrize("mode", MODES)
def test_a_search_returns_what_the_service_finds_best_first_and_each_result_can_be_fetched(
    river: TestClient, mode: Literal["auto", "legacy"]
) -> None:
    query = "Which river flows through Hamburg?"
    results = called(river, "search", {"query": query}, mode=mode)["results"]
    hits = river.post("/v1/search", json={"query": query, "k": 10}).json()["hits"]
    assert [(each["id"], each["text"]) for each in results] == [(hit["id"], hit["text"]) for hit in hits]
    by_id = {passage.id: passage for passage in PASSAGES}
    for result in results:
        document, passage = called(river, "fetch", {"id": result["id"]}, mode=mode), by_id[result["id"]]
        assert {name: document[name] for name in ("id", "title", "url", "text")} == result
        assert document["metadata"] == {**passage.metadata, "document_id": passage.document_id}
        assert result["title"] == passage.title or passage.document_id


def test_a_url_among_the_metadata_is_the_one_that_is_returned(river: TestClient) -> None:
    assert called(river, "fetch", {"id": "isar#0"})["url"] == "https://example.org/isar"
    assert called(river, "fetch", {"id": "owl#0"})["url"] == "urn:ragray:passage:owl%230"


def test_a_service_without_vectors_fetches_too(river_index: Path) -> None:
    config = Config(retrieve=RetrieveConfig(mode="lexical", where="lang == en"))
    with river_client(river_index, config=config) as client:
        assert called(client, "fetch", {"id": "owl#0"})["text"] == "Owls hunt at night."
        assert "there is no passage 'isar#0'" in called(client, "fetch", {"id": "isar#0"})


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("search", {"query": " "}, "query: must not be empty"),
        ("search", {}, "query: is required"),
        ("search", {"query": "owls", "k": 3}, "k: is not a known field"),
        ("search", {"query": "x" * 201}, "query: has 201 characters, at most 200 are allowed"),
        ("fetch", {"id": 'owl"#0" or id != "'}, "id: there is no passage"),
        ("fetch", {"id": "owl"}, "id: there is no passage 'owl'; ask for the `id` of a search result"),
    ],
)
def test_what_goes_wrong_is_the_result_of_the_tool(
    river: TestClient, tool: str, arguments: dict[str, Any], message: str
) -> None:
    assert called(river, tool, arguments).startswith(message)


def test_another_tool_is_an_error_that_names_those_there_are(river: TestClient) -> None:
    async def delete(client: Client) -> str:
        with pytest.raises(MCPError) as raised:
            await client.call_tool("delete", {})
        return raised.value.message

    assert using(river, delete) == "there is no tool 'delete', only search, fetch"


def test_a_key_is_needed_and_its_filter_bounds_what_is_found_and_fetched(
    teams_index: Path, keys_file: Path, secrets: dict[str, str]
) -> None:
    with client_of(teams_index, ServeConfig(keys_file=str(keys_file))) as client:
        assert posted(client).status_code == 401
        for mode in MODES:
            mine = {"mode": mode, "secret": secrets["red"]}
            results = called(client, "search", {"query": "Where is the plum of team blue?"}, **mine)["results"]
            assert {result["id"].partition("-")[0] for result in results} == {"red"}
            assert called(client, "fetch", {"id": "red-plum"}, **mine)["metadata"]["team"] == "red"
            assert called(client, "fetch", {"id": "blue-plum"}, **mine).startswith("id: there is no passage")
        assert called(client, "fetch", {"id": "blue-plum"}, secret=secrets["all"])["metadata"]["team"] == "blue"


def test_a_service_of_this_machine_answers_only_to_its_own_names(river: TestClient) -> None:
    assert posted(river).status_code == 200
    assert posted(river, Origin="http://localhost:3000").status_code == 200
    assert posted(river, Host="rebound.example:8000").status_code == 421
    assert posted(river, Origin="https://rebound.example").status_code == 403


@pytest.mark.parametrize(
    "serve",
    [
        ServeConfig(host="0.0.0.0", insecure=True),
        ServeConfig(insecure=True),
        ServeConfig(cors_origins=("https://rag.example",)),
    ],
)
def test_other_names_and_pages_are_answered_where_the_settings_allow_them(
    river_index: Path, serve: ServeConfig
) -> None:
    with river_client(river_index, config=Config(serve=serve)) as client:
        host = {"Host": "rag.example"} if serve.insecure else {}
        assert posted(client, Origin="https://rag.example", **host).status_code == 200


def test_a_stream_of_messages_from_the_server_is_not_offered(river: TestClient) -> None:
    refused = river.get(f"{LOCAL}/mcp", headers={"Accept": "text/event-stream"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (405, "method_not_allowed")


def test_without_the_package_the_route_names_the_extra(river_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with river_client(river_index) as client:
        for response in (posted(client), client.get("/mcp")):
            assert response.status_code == 501
            assert "pip install 'ragray[mcp]'" in response.json()["error"]["message"]


def test_messages_leave_no_task_behind(river: TestClient) -> None:
    async def many() -> None:
        async with connected(river) as client:
            before = len(asyncio.all_tasks())
            await asyncio.gather(*(client.call_tool("search", {"query": "owls"}) for _ in range(20)))
            assert len(asyncio.all_tasks()) == before

    asyncio.run(many())
