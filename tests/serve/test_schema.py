"""The JSON of the HTTP interface: what is accepted, what is refused, how results are written."""

import pytest
from pydantic import BaseModel, ValidationError

from ragray.generate.orchestrator import ServedAnswer
from ragray.serve import schema
from ragray.serve.answerer import Health
from ragray.serve.schema import AnswerRequest, AnswerResponse, HealthResponse, SearchRequest, SearchResponse
from ragray.types import Answer, Citation, Hit, Passage, RetrievalResult

PARIS = Hit(Passage("paris#0", "The Seine flows through Paris.", "Paris", "paris"), 0.75)
ROME = Hit(Passage("rome#0", "The Tiber flows through Rome.", "Rome", "rome"), 0.5)
MODELS = [value for value in vars(schema).values() if isinstance(value, type) and issubclass(value, schema.Wire)]


@pytest.mark.parametrize("model", MODELS)
def test_every_field_is_described_and_the_models_are_frozen_and_refuse_unknown_keys(model: type[BaseModel]) -> None:
    assert model.model_config.get("frozen")
    assert model.model_config.get("extra") == "forbid"
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"


@pytest.mark.parametrize("model", MODELS)
def test_every_plain_field_has_an_example(model: type[BaseModel]) -> None:
    nested = {"hits", "citations", "timings", "error"}
    assert [name for name, field in model.model_fields.items() if not field.examples and name not in nested] == []


def test_white_space_around_a_question_is_removed() -> None:
    assert AnswerRequest(question="  who?\n").question == "who?"


@pytest.mark.parametrize("question", ["", " ", "\n\t "])
def test_a_blank_question_is_refused(question: str) -> None:
    with pytest.raises(ValidationError, match="at least 1 character"):
        AnswerRequest(question=question)


@pytest.mark.parametrize("k", [0, -1, 51, 1.5, "3", True])
def test_k_is_a_whole_number_within_its_bounds(k: object) -> None:
    with pytest.raises(ValidationError):
        AnswerRequest.model_validate({"question": "who?", "k": k})


def test_a_search_may_ask_for_more_passages_than_an_answer() -> None:
    assert SearchRequest(query="who?", k=1000).k == 1000


def test_citations_are_numbered_from_one_in_their_order() -> None:
    answer = Answer("Which river?", "The Seine.", (Citation(PARIS, 0.9), Citation(ROME, 0.1)), -0.5, "s1")
    response = AnswerResponse.of(ServedAnswer(answer, "run", 0.25, 1.5))
    assert [(c.number, c.id, c.weight) for c in response.citations] == [(1, "paris#0", 0.9), (2, "rome#0", 0.1)]
    assert response.model_dump(exclude={"citations"}) == {
        "question": "Which river?",
        "answer": "The Seine.",
        "finish_reason": "stop",
        "snapshot": "s1",
        "run": "run",
        "timings": {"retrieve_s": 0.25, "generate_s": 1.5},
    }


def test_hits_keep_their_order() -> None:
    assert SearchResponse.of(RetrievalResult("s1", (PARIS, ROME))).model_dump()["hits"][0] == {
        "id": "paris#0",
        "document_id": "paris",
        "title": "Paris",
        "text": "The Seine flows through Paris.",
        "score": 0.75,
    }


def test_a_refused_index_makes_the_service_degraded_and_not_down() -> None:
    assert HealthResponse.of(Health("s1")).status == "ok"
    assert HealthResponse.of(Health("s1", last_error="no such folder")).status == "degraded"
