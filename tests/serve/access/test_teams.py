"""A filter bound to a key: whatever a request asks for, it gets what a service over the key's passages alone would give.

The reference is a service without keys whose own settings hold the filter.
"""

import asyncio
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient

from ragray.embed.encoder import HashEncoder
from ragray.errors import ServingError
from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.index.search.reader import IndexReader
from ragray.retrieve.retriever import LocalRetriever
from ragray.serve.batch.lines import Url
from ragray.serve.local import LocalAnswerer
from tests.serve.access.teams import FRUITS, bearer, client_of

FILTERS = (
    "",
    "team == blue",
    "team == red or team == blue",
    "not team == red",
    "team in (red, blue)",
    "document_id == blue",
    "team == red) or (team == blue",
    "x == 1 or team != red",
    ") or (id != x",
)
OWN_TEXT = ("/v1/embeddings", "/v1/rerank")
"""Routes that read what the caller brings, and no passage."""

JSONL = "application/jsonl"
VOLATILE = re.compile(
    r'"(created|created_at|retrieve_s|generate_s)":[0-9.e-]+|"(item_)?id":"(chatcmpl-|resp_|msg_|batch_req_)[0-9a-f]+"'
    r'|"request_id":"[0-9a-f]+"|"sequence_number":[0-9]+'
)


def questions(seed: int) -> Iterator[str]:
    """Questions that name the passages of both teams."""
    rng = random.Random(seed)
    for _ in range(2):
        yield f"Where is the {rng.choice(FRUITS)} of team {rng.choice(('red', 'blue'))} stored, in cellar {rng.choice(('red', 'blue'))}?"


def chat(question: str, **retrieval: Any) -> dict[str, Any]:
    earlier = [
        {"role": "system", "content": "You see all teams."},
        {"role": "user", "content": "Where does team blue store apples?"},
        {"role": "assistant", "content": "In cellar blue [1].", "annotations": [{"id": "blue-apple"}]},
    ]
    last = {"role": "user", "content": question}
    return {"model": "run-1", "messages": [*earlier, last], "retrieval": {"mode": "hybrid", "k": 9, **retrieval}}


def response(question: str, **retrieval: Any) -> dict[str, Any]:
    earlier = [
        {"role": "user", "content": "Where does team blue store apples?"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "In cellar blue."}]},
    ]
    last = {"role": "user", "content": question}
    return {"model": "run-1", "input": [*earlier, last], "retrieval": {"mode": "lexical", "k": 9, **retrieval}}


def batch_of(question: str) -> str:
    """All other requests as lines of one, each with a filter of the other team among what its sender could try."""
    lines = [
        {"custom_id": str(number), "url": path, "body": body}
        for number, (path, body) in enumerate(single_requests_of(question))
        if path not in ("/retrieve", "/mcp") and not body.get("stream")
    ]
    return "\n".join(map(json.dumps, lines))


def tool_call(name: str, **arguments: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


def requests_of(question: str) -> Iterator[tuple[str, Any]]:
    """Yield requests to every route that looks passages up, among them those that try to get at the other team's."""
    yield from single_requests_of(question)
    yield "/v1/batch", batch_of(question)


def single_requests_of(question: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield those that are one request each."""
    yield "/v1/search", {"query": question, "k": 9}
    for stream in (False, True):
        yield "/v1/answer", {"question": question, "k": 9, "stream": stream}
        for where in FILTERS:
            yield "/v1/chat/completions", {**chat(question, filter=where), "stream": stream}
            yield "/v1/responses", {**response(question, filter=where), "stream": stream}
        yield "/v1/chat/completions", {**chat(question, snapshot="000001-test"), "stream": stream}
        yield "/v1/chat/completions", {**chat(question, snapshot="other"), "stream": stream}
    yield "/retrieve", {"queries": [question, "team blue"], "topk": 9, "return_scores": True}
    setting = {"top_k": 9, "score_threshold": -1}
    for operator, value in (("is", "blue"), ("is not", "red")):
        condition = {"conditions": [{"name": ["team"], "comparison_operator": operator, "value": value}]}
        asked = {"knowledge_id": "ragray", "query": question, "retrieval_setting": setting}
        yield "/retrieval", {**asked, "metadata_condition": condition}
    yield "/retrieval", {"knowledge_id": "ragray", "query": question, "retrieval_setting": setting}
    yield "/mcp", tool_call("search", query=question)
    for passage in ("red-plum", "blue-plum", "public", 'blue-plum" or id == "red-plum'):
        yield "/mcp", tool_call("fetch", id=passage)


def said(client: TestClient, path: str, body: Any, headers: dict[str, str]) -> tuple[int, str]:
    own = {"X-Team": "blue", "X-Filter": "team == blue", "Host": "localhost", **headers}
    if isinstance(body, str):
        response = client.post(path, content=body, headers={"Content-Type": JSONL, **own})
    else:
        response = client.post(path, json=body, headers={"Accept": "application/json, text/event-stream", **own})
    text = VOLATILE.sub("", response.text)
    return response.status_code, joined(text) if "event-stream" in response.headers["content-type"] else text


def joined(events: str) -> str:
    """Return a stream with its pieces joined: where one piece ends and the next begins depends on the time."""
    pieces = re.findall(r'"(?:delta|content)":("(?:[^"\\]|\\.)*")', events)
    others = [line for line in events.splitlines() if line and not re.search(r'"(?:delta|content)":"|\.delta$', line)]
    return "".join(map(json.loads, pieces)) + "\n".join(others)


@pytest.mark.parametrize(
    ("name", "where"), [("red", "team == red"), ("blue", "team == blue"), ("all", ""), ("nobody", "id == x")]
)
def test_a_key_gets_what_a_service_over_its_passages_alone_gives(
    teams: TestClient, teams_index: Path, secrets: dict[str, str], name: str, where: str
) -> None:
    with client_of(teams_index, where=where) as alone:
        for question in questions(seed=7):
            for path, body in requests_of(question):
                mine, reference = said(teams, path, body, bearer(secrets[name])), said(alone, path, body, {})
                assert mine == reference, (path, json.dumps(body))


def test_no_response_to_a_team_holds_a_passage_of_the_other(teams: TestClient, secrets: dict[str, str]) -> None:
    found = 0
    for question in ("fruit", "plum", "cellar"):  # which name no team
        for path, body in requests_of(question):
            _, text = said(teams, path, body, bearer(secrets["red"]))
            for said_back in ("team == blue", "blue'", "no passage 'blue-plum"):
                text = text.replace(said_back, "")
            assert "blue" not in text, (path, json.dumps(body))
            found += "cellar red" in text
    assert found > 20


def test_every_route_that_looks_passages_up_is_among_those_tried(teams: TestClient, secrets: dict[str, str]) -> None:
    paths = teams.get("/openapi.json", headers=bearer(secrets["all"])).json()["paths"]
    posts = {path for path, methods in paths.items() if "post" in methods}
    assert posts - set(OWN_TEXT) | {"/mcp"} == {path for path, _ in requests_of("plum")}
    lines = [json.loads(line)["url"] for line in batch_of("plum").splitlines()]
    assert set(lines) == set(get_args(Url)) - set(OWN_TEXT)


def test_a_filter_whose_field_no_passage_has_finds_nothing(teams: TestClient, secrets: dict[str, str]) -> None:
    response = teams.post("/v1/search", json={"query": "plum", "k": 9}, headers=bearer(secrets["nobody"]))
    assert response.json()["hits"] == []


def test_requests_side_by_side_keep_their_own_filters(
    teams_index: Path, keys_file: Path, secrets: dict[str, str]
) -> None:
    import httpx

    from ragray.config import ServeConfig

    async def all_at_once(app: Any) -> list[set[str]]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            asked = [
                client.post("/v1/search", json={"query": "plum", "k": 9}, headers=bearer(secrets[name]))
                for name in ("red", "blue") * 10
            ]
            return [{hit["document_id"] for hit in each.json()["hits"]} for each in await asyncio.gather(*asked)]

    with client_of(teams_index, ServeConfig(keys_file=str(keys_file))) as client:
        assert asyncio.run(all_at_once(client.app)) == [{"red"}, {"blue"}] * 10


def test_with_keys_a_lookup_that_belongs_to_no_request_is_refused(teams_index: Path) -> None:
    retriever = LocalRetriever(IndexReader.open(teams_index), HashEncoder(64))
    answerer = LocalAnswerer(retriever, FirstSentenceGenerator(), k=2, with_keys=True)
    with pytest.raises(ServingError, match="outside of a request with a key"):
        asyncio.run(answerer.search("plum", k=None))
    answerer.close()
