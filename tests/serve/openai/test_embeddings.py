"""Embeddings, models and reranking in the shape of the field."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from ragray.config import Config, RetrieveConfig
from ragray.embed.encoder import HashEncoder
from ragray.types import Hit
from tests.serve.openai.test_chat import error_of
from tests.serve.river import river_client

TEXTS = ["Which river?", "北京在哪里？"]


class ByLength:
    """A reranker for which longer is better."""

    def rerank(self, queries: list[str], hits: list[list[Hit]], k: int) -> list[list[Hit]]:
        scored = [[Hit(hit.passage, float(len(hit.passage.text) - 3)) for hit in found] for found in hits]
        return [sorted(found, key=lambda hit: -hit.score)[:k] for found in scored]


def embed(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/embeddings", json={"model": "hash:64", "input": TEXTS, **fields})


def test_vectors_are_those_of_the_question_encoder_in_the_order_of_the_texts(river: TestClient) -> None:
    body = embed(river).json()
    vectors_ND = np.array([one["embedding"] for one in body["data"]], dtype=np.float32)
    assert np.array_equal(vectors_ND, HashEncoder(64).encode_questions(TEXTS))
    assert [(one["object"], one["index"]) for one in body["data"]] == [("embedding", 0), ("embedding", 1)]
    assert (body["object"], body["model"], body["usage"]) == (
        "list",
        "hash:64",
        {"prompt_tokens": 3, "total_tokens": 3},
    )


def test_base64_holds_the_same_numbers_as_little_endian_float32(river: TestClient) -> None:
    [one] = embed(river, input=TEXTS[0], encoding_format="base64").json()["data"]
    vector_D = np.frombuffer(base64.b64decode(one["embedding"]), dtype="<f4")
    assert np.array_equal(vector_D, HashEncoder(64).encode_questions(TEXTS[:1])[0])


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"dimensions": 32}, 400, "dimensions"),
        ({"input": []}, 400, "input"),
        ({"input": ["a", " "]}, 400, "input.1"),
        ({"input": [[1, 2]]}, 400, "input.0"),
        ({"input": "x" * 201}, 400, "input.0"),
        ({"encoding_format": "int8"}, 400, "encoding_format"),
        ({"model": "other"}, 404, "model"),
    ],
)
def test_what_cannot_be_encoded_is_refused_by_name(
    river: TestClient, fields: dict[str, Any], status: int, param: str
) -> None:
    found, kind, named, _ = error_of(embed(river, **fields))
    assert (found, kind, named) == (status, "invalid_request_error", param)
    assert embed(river, dimensions=64).status_code == 200


def test_the_models_are_listed_with_the_route_that_takes_each(river: TestClient) -> None:
    body = river.get("/v1/models").json()
    assert body["object"] == "list"
    assert [(one["id"], one["used_for"]) for one in body["data"]] == [("run-1", "chat"), ("hash:64", "embeddings")]
    assert {one["object"] for one in body["data"]} == {"model"}


def test_documents_are_ranked_by_the_reranker_of_the_service(river_index: Path) -> None:
    config = Config(retrieve=RetrieveConfig(rerank_model="by-length"))
    with river_client(river_index, reranker=ByLength(), config=config) as client:
        body = {"model": "by-length", "query": "q", "documents": ["two", {"text": "three"}, "xx"]}
        ranked = client.post("/v1/rerank", json=body).json()["results"]
        assert [(one["index"], one["document"]) for one in ranked] == [(1, None), (0, None), (2, None)]
        assert ranked[1]["relevance_score"] == 0.5
        assert 1 > ranked[0]["relevance_score"] > 0.5 > ranked[2]["relevance_score"] > 0
        [best] = client.post("/v1/rerank", json={**body, "top_n": 1, "return_documents": True}).json()["results"]
        assert best["document"] == {"text": "three"}
        assert client.get("/v1/models").json()["data"][-1]["used_for"] == "rerank"


def test_without_a_reranker_the_route_says_how_to_get_one(river: TestClient) -> None:
    response = river.post("/v1/rerank", json={"model": "m", "query": "q", "documents": ["a"]})
    assert error_of(response)[0] == 404
    assert "retrieve.rerank_model" in response.json()["error"]["message"]
