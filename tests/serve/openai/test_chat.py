"""Chat completions: the answer to the last message with its sources, and every field that cannot be followed refused by name."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ragray.config import Config, RetrieveConfig
from ragray.generate.engine import GenerationRequest
from ragray.generate.engines.fake import FirstSentenceGenerator, FirstSentenceRunner
from ragray.serve.openai.chat_request import NEUTRAL
from tests.serve.river import SNAPSHOT, river_client

ASK = {"role": "user", "content": "Which river flows through Hamburg?"}
ELBE = "The Elbe flows through Hamburg."


class Remembering(FirstSentenceGenerator):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[GenerationRequest] = []

    def open_runner(self) -> FirstSentenceRunner:
        asked = self.asked

        class Runner(FirstSentenceRunner):
            def add(self, requests: Any) -> Any:
                asked.extend(submission.request for submission in requests.values())
                return super().add(requests)

        return Runner()


def chat(client: TestClient, *messages: dict[str, Any], **fields: Any) -> Any:
    body = {"model": "run-1", "messages": messages or (ASK,), **fields}
    return client.post("/v1/chat/completions", json=body)


def error_of(response: Any) -> tuple[int, str, str | None, str | None]:
    error = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return response.status_code, error["type"], error["param"], error["code"]


def test_a_completion_has_the_shape_that_clients_expect(river: TestClient) -> None:
    body = chat(river).json()
    assert (body["object"], body["model"], body["id"][:9]) == ("chat.completion", "run-1", "chatcmpl-")
    [choice] = body["choices"]
    assert (choice["index"], choice["finish_reason"], choice["message"]["role"]) == (0, "stop", "assistant")
    assert choice["message"]["content"] == ELBE
    usage = body["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"] > 0


def test_the_passage_of_the_largest_share_is_the_annotation_of_the_whole_answer(river: TestClient) -> None:
    body = chat(river).json()
    first, second = body["citations"]
    assert [first["number"], first["id"], first["weight"], second["weight"]] == [1, "elbe#0", 1.0, 0.0]
    assert first["text"].startswith("The Elbe [3] flows")
    [annotation] = body["choices"][0]["message"]["annotations"]
    assert annotation == {
        "type": "url_citation",
        "url_citation": {
            "start_index": 0,
            "end_index": len(ELBE),
            "title": "Elbe",
            "url": "urn:ragray:passage:elbe%230",
        },
    }


def test_a_url_among_the_metadata_is_that_of_the_citation(river: TestClient) -> None:
    body = chat(river, {"role": "user", "content": "Was fließt durch München?"}).json()
    assert body["citations"][0]["url"] == "https://example.org/isar"


def test_headers_name_the_snapshot_the_run_the_times_and_the_request(river: TestClient) -> None:
    headers = chat(river).headers
    assert (headers["x-ragray-snapshot"], headers["x-ragray-run"]) == (SNAPSHOT, "run-1")
    assert [part.partition(";dur=")[0] for part in headers["server-timing"].split(", ")] == ["retrieve", "generate"]
    assert len(headers["x-request-id"]) == 32
    assert chat(river).headers["x-request-id"] != headers["x-request-id"]


def test_passages_are_looked_up_for_the_last_message_and_the_earlier_ones_reach_the_prompt(river_index: Path) -> None:
    generator = Remembering()
    messages = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Do owls sleep?"},
        {"role": "assistant", "content": "They hunt at night.", "annotations": []},
        {"role": "developer", "content": "Be polite."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Which river flows"}, {"type": "text", "text": "there?"}],
        },
    )
    with river_client(river_index, generator=generator) as client:
        body = chat(client, *messages).json()
    [asked] = generator.asked
    assert asked.question == "Which river flows\nthere?"
    assert [(turn.role, turn.text) for turn in asked.history] == [
        ("user", "Do owls sleep?"),
        ("assistant", "They hunt at night."),
    ]
    assert asked.instruction == "Be brief.\n\nBe polite."
    assert body["citations"][0]["id"] == "elbe#0"


def test_stop_texts_and_the_largest_number_of_tokens_end_an_answer(river: TestClient) -> None:
    for fields, text, reason in (
        ({"stop": "flows"}, "The Elbe", "stop"),
        ({"stop": ["Hamburg", " through"]}, "The Elbe flows", "stop"),
        ({"max_tokens": 2}, "The Elbe", "length"),
        ({"max_completion_tokens": 1}, "The", "length"),
        ({"max_tokens": 500}, ELBE, "stop"),
    ):
        [choice] = chat(river, **fields).json()["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (text, reason)


def test_retrieval_changes_how_passages_are_found_for_one_request(river: TestClient) -> None:
    assert [c["id"] for c in chat(river, retrieval={"filter": "lang == de"}).json()["citations"]] == ["isar#0"]
    assert len(chat(river, retrieval={"k": 3}).json()["citations"]) == 3
    assert [c["id"] for c in chat(river, retrieval={"mode": "lexical", "k": 1}).json()["citations"]] == ["elbe#0"]
    assert chat(river, retrieval={"snapshot": SNAPSHOT}).status_code == 200
    refused = chat(river, retrieval={"snapshot": "000000-gone"})
    assert (refused.status_code, "'000001-test' is" in refused.json()["error"]["message"]) == (400, True)


def test_closed_book_looks_nothing_up_and_contradicts_what_changes_the_search(river: TestClient) -> None:
    response = chat(river, retrieval={"closed_book": True})
    assert (response.json()["choices"][0]["message"]["content"], response.json()["citations"]) == ("I do not know.", [])
    assert "x-ragray-snapshot" not in response.headers
    refused = chat(river, retrieval={"closed_book": True, "k": 3})
    assert error_of(refused) == (400, "invalid_request_error", "retrieval.closed_book", "invalid_value")


def test_a_filter_is_beside_that_of_the_service_and_cannot_end_it(river_index: Path) -> None:
    config = Config(retrieve=RetrieveConfig(where="lang == en"))
    with river_client(river_index, config=config) as client:
        assert chat(client, retrieval={"filter": "lang == de"}).json()["citations"] == []
        assert chat(client, retrieval={"filter": "lang == de or lang == en"}).json()["citations"][0]["id"] == "elbe#0"
        refused = chat(client, retrieval={"filter": "lang == en) or (lang == de"})
    assert error_of(refused)[:2] == (400, "invalid_request_error")
    assert "expected 'and', 'or' or the end at position 11" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"temperature": 3}, "temperature", "less_than_equal"),
        ({"top_p": 0.5}, "top_p", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"n": True}, "n", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"best_of": 2}, "best_of", "unknown_parameter"),
        ({"retrieval": {"kk": 1}}, "retrieval.kk", "unknown_parameter"),
        ({"retrieval": {"mode": "fuzzy"}}, "retrieval.mode", "literal_error"),
        ({"max_tokens": 0}, "max_tokens", "greater_than_equal"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "too_long"),
        ({"stop": ""}, "stop.0", "string_too_short"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ],
)
def test_a_field_that_cannot_be_followed_is_400_and_named(
    river: TestClient, fields: dict[str, Any], param: str, code: str
) -> None:
    response = chat(river, **fields)
    assert error_of(response) == (400, "invalid_request_error", param, code)
    assert response.json()["error"]["message"].startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "assistant", "content": "Yes."}, "messages.0.role"),
        ({"role": "tool", "content": "3"}, "messages.0.role"),
        ({"role": "user", "content": " \u200b"}, "messages.0.content"),
        ({"role": "user", "content": "x" * 201}, "messages.0.content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "messages.0.content"),
        ({"role": "user", "content": "who?", "name": "Ann"}, "messages.0.name"),
    ],
)
def test_a_message_that_cannot_be_answered_is_400_and_named(
    river: TestClient, message: dict[str, Any], param: str
) -> None:
    assert error_of(chat(river, message))[:3] == (400, "invalid_request_error", param)


def test_values_that_ask_for_nothing_are_accepted(river: TestClient) -> None:
    plain = chat(river).json()["choices"]
    neutral = {name: values[0] for name, values in NEUTRAL.items() if values}
    assert chat(river, **neutral, **dict.fromkeys(NEUTRAL.keys() - neutral.keys())).json()["choices"] == plain
    assert chat(river, seed=7, user="u-1", stop=None, stream_options=None).json()["choices"] == plain


def test_another_model_is_404_and_the_message_names_the_one_there_is(river: TestClient) -> None:
    response = chat(river, model="gpt-4o")
    assert error_of(response) == (404, "invalid_request_error", "model", "model_not_found")
    assert "'run-1' is" in response.json()["error"]["message"]


def test_what_is_wrong_with_a_body_has_the_shape_too(river: TestClient) -> None:
    path, headers = "/v1/chat/completions", {"Content-Type": "application/json"}
    assert error_of(river.post(path, content="{", headers=headers))[:2] == (400, "invalid_request_error")
    assert error_of(river.post(path, json={"model": "run-1"}))[2:] == ("messages", "missing_required_parameter")
    assert error_of(river.post(path, content="a=1"))[:2] == (415, "invalid_request_error")
