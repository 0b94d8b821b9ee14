"""Over HTTP: how long a request wants to wait, who is told to come back when, and what is spared meanwhile."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from httpx import Headers

from ragray.config import RetrieveConfig, ServeConfig
from ragray.embed.encoder import HashEncoder
from ragray.errors import InputError, OverloadedError
from ragray.generate.engine import Generation, GenerationRequest, Piece, Sampling
from ragray.generate.orchestrator import Orchestrator, QuestionRequest
from ragray.index.search.reader import IndexReader
from ragray.retrieve.caller import Caller, calling
from ragray.retrieve.retriever import AS_SET, LocalRetriever, SearchOptions
from ragray.serve.app import create_app
from ragray.serve.batch.route import JSONL
from ragray.serve.load.admitted import AdmittedWriter
from ragray.serve.load.deadline import TIMEOUT_HEADER, time_left
from ragray.types import Hit, RetrievalResult
from tests.serve.river import river_client
from tests.serve.test_app import HITS, Endless

QUESTION = {"question": "where does the Elbe flow?"}
CHAT = {"model": "run-1", "messages": [{"role": "user", "content": "where does the Elbe flow?"}]}


@pytest.fixture(scope="module")
def endless(river_index: Path) -> Iterator[TestClient]:
    """A service whose answers never end."""
    with river_client(river_index, generator=Endless()) as client:
        yield client


@pytest.mark.parametrize(("path", "body"), [("/v1/answer", QUESTION), ("/v1/chat/completions", CHAT)])
def test_who_waits_no_longer_is_told_so(endless: TestClient, path: str, body: dict[str, object]) -> None:
    response = endless.post(path, json=body, headers={TIMEOUT_HEADER: "0.05"})
    assert response.status_code == 504
    streamed = endless.post(path, json={**body, "stream": True}, headers={TIMEOUT_HEADER: "0.3"})
    assert streamed.status_code == 200
    assert "not answered in time" in streamed.text.strip().splitlines()[-1]


def test_a_batch_ends_within_the_time_that_it_wants_to_wait(endless: TestClient) -> None:
    line = json.dumps({"custom_id": "1", "url": "/v1/answer", "body": QUESTION})
    response = endless.post("/v1/batch", content=line, headers={TIMEOUT_HEADER: "0.1", "content-type": JSONL})
    assert response.json()["error"]["code"] == "timeout"


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "inf", "1 s"])
def test_a_time_that_is_none_is_refused_by_the_name_of_its_header(river: TestClient, value: str) -> None:
    for path, body in (("/v1/answer", QUESTION), ("/v1/chat/completions", CHAT), ("/v1/search", {"query": "Elbe"})):
        response = river.post(path, json=body, headers={TIMEOUT_HEADER: value})
        assert (response.status_code, TIMEOUT_HEADER in response.json()["error"]["message"]) == (400, True)


def test_a_request_cannot_ask_for_more_time_than_the_service_gives(river: TestClient) -> None:
    assert river.post("/v1/answer", json=QUESTION, headers={TIMEOUT_HEADER: "1000"}).status_code == 200
    assert time_left(7.0) == 7.0  # outside of a request


class Writer:
    """Writes when it is allowed to."""

    def __init__(self) -> None:
        self.may = asyncio.Event()

    async def check(self, question: str, instruction: str) -> None:
        if question == "too long":
            raise InputError("too long")

    async def generate(self, requests: Sequence[GenerationRequest], samplings: Sequence[Sampling]) -> list[Generation]:
        await self.may.wait()
        return [Generation("yes", (1.0,) * len(request.hits)) for request in requests]

    async def stream(self, request: GenerationRequest, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        await self.may.wait()
        yield "yes"
        yield Generation("yes")


class Finder:
    """Keeps how it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, SearchOptions]] = []

    async def find(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        self.asked.append((k, options))
        return [RetrievalResult("s1", HITS[:k]) for _ in queries]


class Service:
    """An orchestrator on a clock that stands still, which has answered one question, in a second."""

    def __init__(self, **settings: int) -> None:
        self.now, self.writer, self.finder = 0.0, Writer(), Finder()
        config = ServeConfig(request_timeout_s=10, **settings)
        self.admitted = AdmittedWriter(self.writer, config, most=100, clock=lambda: self.now)
        self.orchestrator = Orchestrator(self.finder, self.admitted, k=2, spare=self.admitted.spare)

    async def begin(self, number: int) -> list[asyncio.Task[object]]:
        tasks = [asyncio.create_task(self.orchestrator.answer(QuestionRequest("who?"))) for _ in range(number)]
        while self.admitted.num_open < number:
            await asyncio.sleep(0)
        return tasks  # type: ignore[return-value] # of answers

    async def warm_up(self) -> None:
        [task] = await self.begin(1)
        self.now = 1.0
        self.writer.may.set()
        await task
        self.writer.may.clear()


def test_who_would_be_late_is_refused_before_anything_is_looked_up() -> None:
    async def scenario() -> None:
        service = Service()
        await service.warm_up()
        tasks = await service.begin(8)
        service.finder.asked.clear()
        with pytest.raises(OverloadedError, match=r"^8 requests are open.* about 9\.0 s, and has 10 s") as caught:
            await service.orchestrator.answer(QuestionRequest("who?"))
        assert (caught.value.retry_after_s, service.finder.asked) == (1, [])
        service.writer.may.set()
        await asyncio.gather(*tasks)
        assert service.admitted.num_open == 0
        assert (await service.orchestrator.answer(QuestionRequest("who?"))).answer.text == "yes"

    asyncio.run(scenario())


def test_only_whole_answers_tell_of_the_pace_streamed_or_not() -> None:
    async def scenario() -> None:
        service = Service()
        service.writer.may.set()
        pieces = service.orchestrator.stream(QuestionRequest("who?"))
        assert [piece async for piece in pieces if piece == "yes"] == ["yes"]
        left = service.orchestrator.stream(QuestionRequest("who?"))
        await anext(left)
        await left.aclose()
        assert service.admitted.num_open == 0
        with pytest.raises(InputError):
            await service.orchestrator.answer(QuestionRequest("too long"))

    asyncio.run(scenario())


def test_while_time_is_short_fewer_passages_are_looked_up_and_the_caller_is_told() -> None:
    async def scenario() -> None:
        service = Service(degraded_k=1)
        await service.warm_up()
        tasks = await service.begin(5)
        assert set(service.finder.asked) == {(2, AS_SET), (1, SearchOptions(rerank=False))}
        with calling(caller := Caller()):
            found = await service.orchestrator.find(QuestionRequest("who?", k=9))
            assert (len(found.result.hits), caller.degraded) == (1, "k=1, no reranking")
            assert len(await service.orchestrator.search_all(["who?"], k=2)) == 1
            assert service.finder.asked[-1] == (2, AS_SET)  # a search is what it is
        service.writer.may.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_what_was_spared_stands_in_a_header() -> None:
    async def scenario() -> Headers:
        service = Service(degraded_k=1)
        await service.warm_up()
        tasks = await service.begin(5)
        app = create_app(service.orchestrator, ServeConfig())  # type: ignore[arg-type] # answers only
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            asking = asyncio.create_task(client.post("/v1/answer", json=QUESTION))
            while service.admitted.num_open < 6:
                await asyncio.sleep(0.01)
            service.writer.may.set()
            await asyncio.gather(*tasks)
            return (await asking).headers

    assert asyncio.run(scenario())["x-ragray-degraded"] == "k=1, no reranking"


def test_a_batch_is_let_in_line_by_line_and_is_no_request_of_its_own() -> None:
    async def scenario() -> tuple[int, list[int]]:
        service = Service()
        app = create_app(service.orchestrator, ServeConfig())  # type: ignore[arg-type] # answers only
        lines = "\n".join(json.dumps({"custom_id": str(n), "url": "/v1/answer", "body": QUESTION}) for n in range(3))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            asking = asyncio.create_task(client.post("/v1/batch", content=lines, headers={"content-type": JSONL}))
            while len(service.finder.asked) < 3:
                await asyncio.sleep(0.01)
            num_open = service.admitted.num_open
            service.writer.may.set()
            results = map(json.loads, (await asking).text.splitlines())
            return num_open, [result["response"]["status_code"] for result in results]

    assert asyncio.run(scenario()) == (3, [200, 200, 200])


class Reranker:
    """Turns the order round."""

    def rerank(self, queries: Sequence[str], hits: Sequence[Sequence[Hit]], k: int) -> list[tuple[Hit, ...]]:
        return [tuple(reversed(found))[:k] for found in hits]


def test_a_search_that_is_not_to_be_reranked_has_the_order_of_the_search(river_index: Path) -> None:
    reader = IndexReader.open(river_index)
    plain = LocalRetriever(reader, HashEncoder(64), RetrieveConfig())
    reranking = LocalRetriever(reader, HashEncoder(64), RetrieveConfig(), Reranker())  # type: ignore[arg-type] # a fake
    assert reranking.search(["Elbe"], 2, SearchOptions(rerank=False)) == plain.search(["Elbe"], 2)
    assert reranking.search(["Elbe"], 2) != plain.search(["Elbe"], 2)
