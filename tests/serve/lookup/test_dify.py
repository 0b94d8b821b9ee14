"""Dify's external knowledge: records with scores and metadata, conditions as filters, errors in its shape."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from ragray.index.search.filter import parse_filter
from ragray.serve.lookup.dify_filter import MetadataCondition, to_filter

QUERY = "Which river flows through Hamburg?"


def retrieval(client: TestClient, *, knowledge: str = "ragray", query: str = QUERY, **fields: Any) -> Any:
    setting = {"top_k": fields.pop("top_k", 3), "score_threshold": fields.pop("score_threshold", 0.0)}
    body = {"knowledge_id": knowledge, "query": query, "retrieval_setting": setting, **fields}
    return client.post("/retrieval", json=body, headers={"Authorization": "Bearer unused"})


def condition(*conditions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"metadata_condition": {"conditions": conditions, **fields}}


def test_a_record_has_content_score_title_and_metadata(river: TestClient) -> None:
    [record] = retrieval(river, top_k=1).json()["records"]
    assert (record["title"], record["content"][:8]) == ("Elbe", "The Elbe")
    assert record["metadata"] == {"lang": "en", "passage_id": "elbe#0", "document_id": "elbe"}


def test_passages_below_the_threshold_are_left_out(river: TestClient) -> None:
    scores = [record["score"] for record in retrieval(river).json()["records"]]
    kept = retrieval(river, score_threshold=scores[0]).json()["records"]
    assert [record["score"] for record in kept] == scores[:1]


def test_conditions_on_metadata_filter(river: TestClient) -> None:
    german = condition({"name": ["lang"], "comparison_operator": "is", "value": "de"})
    assert [record["title"] for record in retrieval(river, **german).json()["records"]] == ["Isar"]
    long = condition({"name": ["length"], "comparison_operator": "≥", "value": 290})
    assert [record["title"] for record in retrieval(river, **long).json()["records"]] == ["Isar"]
    assert len(retrieval(river, metadata_condition={"conditions": []}).json()["records"]) == 3


def test_a_condition_is_written_as_a_filter_whatever_its_texts_hold() -> None:
    value = 'a" or lang == "b\\'
    found = MetadataCondition.model_validate(
        {
            "logical_operator": "or",
            "conditions": [
                {"name": ["语言", "lang"], "comparison_operator": "is not", "value": value},
                {"name": ["year"], "comparison_operator": ">", "value": 2020},
            ],
        }
    )
    assert parse_filter(to_filter(found)).fields == {"语言", "lang", "year"}
    assert to_filter(found).endswith('or ("year" > 2020)')


@pytest.mark.parametrize(
    ("fields", "status", "code", "message"),
    [
        ({"knowledge": "other"}, 404, 2001, "knowledge_id: 'other' does not exist"),
        ({"query": " "}, 400, 400, "query: must not be empty"),
        ({"top_k": 0}, 400, 400, "retrieval_setting.top_k: "),
        (
            condition({"name": ["lang"], "comparison_operator": "contains", "value": "d"}),
            *(400, 400, "metadata_condition.conditions.0.comparison_operator: "),
        ),
    ],
)
def test_an_error_has_the_shape_of_dify(
    river: TestClient, fields: dict[str, Any], status: int, code: int, message: str
) -> None:
    response = retrieval(river, **fields)
    assert (response.status_code, response.json()["error_code"]) == (status, code)
    assert response.json()["error_msg"].startswith(message)
