"""`POST /retrieve`: documents for batches of queries, and patience where too many wait."""

from collections.abc import Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ragray.config import ServeConfig
from ragray.errors import OverloadedError
from ragray.retrieve.retriever import AS_SET, SearchOptions
from ragray.serve.app import create_app
from ragray.types import Hit, Passage, RetrievalResult
from tests.serve.test_app import Failing


class Busy(Failing):
    """An answerer that is overloaded for its first searches."""

    def __init__(self, times: int) -> None:
        super().__init__(OverloadedError("64 requests are waiting"))
        self.times = times

    async def search_all(
        self, queries: Sequence[str], *, k: int | None, options: SearchOptions = AS_SET
    ) -> list[RetrievalResult]:
        self.times -= 1
        if self.times >= 0:
            raise self._err
        return [RetrievalResult("s1", (Hit(Passage("1", "text", "title"), 1.0),)) for _ in queries]


def retrieve(client: TestClient, **body: Any) -> Any:
    return client.post("/retrieve", json=body)


def test_every_query_has_its_documents_with_their_scores(river: TestClient) -> None:
    queries = ["The Elbe flows through Hamburg", "owls at night"]
    body = retrieve(river, queries=queries, topk=2, return_scores=True).json()
    assert [len(found) for found in body["result"]] == [2, 2]
    first = body["result"][0][0]
    assert first["document"] == {
        "id": "elbe#0",
        "contents": '"Elbe"\nThe Elbe [3] flows through Hamburg. It rises in Bohemia.',
    }
    assert first["score"] >= body["result"][0][1]["score"]
    assert body["result"][1][0]["document"] == {"id": "owl#0", "contents": '""\nOwls hunt at night.'}


def test_without_scores_the_documents_stand_alone(river: TestClient) -> None:
    [[document]] = retrieve(river, queries=["owls at night"], topk=1).json()["result"]
    assert document["id"] == "owl#0"


def test_a_blank_query_has_no_documents_and_does_not_fail_the_others(river: TestClient) -> None:
    found = retrieve(river, queries=[" ", "owls at night", ""], topk=1).json()["result"]
    assert [len(documents) for documents in found] == [0, 1, 0]


@pytest.mark.parametrize("body", [{}, {"queries": []}, {"queries": ["a"], "topk": 0}, {"queries": ["a"], "top_k": 1}])
def test_a_request_that_is_wrong_is_refused(river: TestClient, body: dict[str, Any]) -> None:
    assert retrieve(river, **body).status_code == 422


def test_an_overloaded_service_is_waited_for_and_never_answers_429() -> None:
    patient = TestClient(create_app(Busy(2), ServeConfig()))
    assert retrieve(patient, queries=["a", "b"]).json()["result"] == [[{"id": "1", "contents": '"title"\ntext'}]] * 2
    impatient = TestClient(create_app(Busy(10**6), ServeConfig(request_timeout_s=0.05)))
    response = retrieve(impatient, queries=["a"])
    assert (response.status_code, response.json()["error"]["type"]) == (503, "unavailable")
