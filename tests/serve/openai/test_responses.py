"""Responses: the answer to a text or a conversation as OpenAI's newer interface has it; what needs state is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.serve.openai.responses.request import NEUTRAL
from tests.serve.openai.test_chat import ASK, ELBE, Remembering, chat, error_of
from tests.serve.river import SNAPSHOT, river_client

QUESTION = ASK["content"]
OWN = {"id", "created_at"}


def respond(client: TestClient, text: Any = QUESTION, /, **fields: Any) -> Any:
    return client.post("/v1/responses", json={"model": "run-1", "input": text, **fields})


def events(response: Any) -> list[dict[str, Any]]:
    """Read the events; each is named by its type."""
    found = []
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def without_ids(value: Any) -> Any:
    """Return an object without what differs from one response to the next."""
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key not in OWN}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def test_a_response_has_the_answer_the_sources_and_the_usage_of_a_chat_completion(river: TestClient) -> None:
    body, completion = respond(river).json(), chat(river).json()
    assert (body["object"], body["status"], body["model"], body["id"][:5]) == (
        "response",
        "completed",
        "run-1",
        "resp_",
    )
    [message] = body["output"]
    assert (message["type"], message["role"], message["status"], message["id"][:4]) == (
        "message",
        "assistant",
        "completed",
        "msg_",
    )
    [text] = message["content"]
    same = completion["choices"][0]["message"]
    assert (text["type"], text["text"]) == ("output_text", same["content"])
    assert text["annotations"] == [{"type": "url_citation", **one["url_citation"]} for one in same["annotations"]]
    assert body["citations"] == completion["citations"]
    assert [body["usage"][name] for name in ("input_tokens", "output_tokens", "total_tokens")] == list(
        completion["usage"].values()
    )


def test_headers_name_the_snapshot_the_run_and_the_times(river: TestClient) -> None:
    for stream, stages in ((False, ["retrieve", "generate"]), (True, ["retrieve"])):
        headers = respond(river, stream=stream).headers
        assert (headers["x-ragray-snapshot"], headers["x-ragray-run"]) == (SNAPSHOT, "run-1")
        assert [part.partition(";dur=")[0] for part in headers["server-timing"].split(", ")] == stages


def test_the_events_build_the_response_that_comes_without_stream(river: TestClient) -> None:
    whole, found = respond(river).json(), events(respond(river, stream=True))
    assert [each["sequence_number"] for each in found] == list(range(len(found)))
    kinds = [each["type"].removeprefix("response.") for each in found]
    deltas = [each["delta"] for each in found if "delta" in each]
    assert kinds == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *["output_text.delta"] * len(deltas),
        *("output_text.annotation.added", "output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    by_kind = dict(zip(kinds, found, strict=True))
    [message] = whole["output"]
    [text] = message["content"]
    assert "".join(deltas) == by_kind["output_text.done"]["text"] == text["text"]
    assert [by_kind["output_text.annotation.added"]["annotation"]] == text["annotations"]
    assert by_kind["content_part.done"]["part"] == text
    assert without_ids(by_kind["output_item.done"]["item"]) == without_ids(message)
    assert without_ids(by_kind["completed"]["response"]) == without_ids(whole)
    begun = by_kind["created"]["response"]
    assert (begun["status"], begun["output"], begun["usage"], begun["id"]) == (
        "in_progress",
        [],
        None,
        by_kind["completed"]["response"]["id"],
    )
    assert {each["item_id"] for each in found if "item_id" in each} == {by_kind["output_item.done"]["item"]["id"]}


def test_every_number_that_the_answer_cites_by_is_annotated_where_it_stands(river_index: Path) -> None:
    generator = FirstSentenceGenerator(numbered=True)
    with river_client(river_index, generator=generator, numbered=True) as client:
        [text] = respond(client).json()["output"][0]["content"]
        [note] = [each["annotation"] for each in events(respond(client, stream=True)) if "annotation" in each]
    assert text["annotations"] == [note]
    assert text["text"][note["start_index"] : note["end_index"]] == "[1]"


def test_an_answer_that_is_cut_is_incomplete_and_says_why(river: TestClient) -> None:
    body = respond(river, max_output_tokens=2).json()
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (body["output"][0]["status"], body["output"][0]["content"][0]["text"]) == ("incomplete", "The Elbe")
    assert events(respond(river, max_output_tokens=2, stream=True))[-1]["type"] == "response.incomplete"


def test_instructions_and_earlier_messages_reach_the_prompt_and_an_output_can_be_sent_back(river_index: Path) -> None:
    generator = Remembering()
    with river_client(river_index, generator=generator) as client:
        earlier = respond(client, "Do owls sleep?").json()["output"]
        messages = [
            {"role": "user", "content": "Do owls sleep?"},
            *earlier,
            {"role": "developer", "content": "Be polite."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
        ]
        body = respond(client, messages, instructions="Be brief.").json()
    asked = generator.asked[-1]
    assert (asked.question, asked.instruction) == (QUESTION, "Be brief.\n\nBe polite.")
    assert [turn.role for turn in asked.history] == ["user", "assistant"]
    assert (body["output"][0]["content"][0]["text"], body["instructions"]) == (ELBE, "Be brief.")


def test_retrieval_changes_how_passages_are_found(river: TestClient) -> None:
    found = respond(river, retrieval={"filter": "lang == de"}).json()["citations"]
    assert [citation["id"] for citation in found] == ["isar#0"]
    assert respond(river, retrieval={"closed_book": True}).json()["citations"] == []


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"store": True}, "store", "unsupported_parameter"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools", "unsupported_parameter"),
        ({"text": {"format": {"type": "json_object"}}}, "text", "unsupported_parameter"),
        ({"reasoning": {"effort": "low"}}, "reasoning", "unsupported_parameter"),
        ({"truncation": "disabled"}, "truncation", "unsupported_parameter"),
        ({"max_tokens": 3}, "max_tokens", "unknown_parameter"),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater_than_equal"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"input": " "}, "input.0.content", "invalid_value"),
        ({"input": []}, "input", "too_short"),
        ({"input": [{"type": "function_call_output", "output": "3"}]}, "input.0.type", "literal_error"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content", "unsupported_value"),
        ({"input": [{"role": "assistant", "content": "Yes."}]}, "input.0.role", "invalid_value"),
    ],
)
def test_what_cannot_be_followed_is_400_and_named(
    river: TestClient, fields: dict[str, Any], param: str, code: str
) -> None:
    response = respond(river, **fields)
    assert error_of(response) == (400, "invalid_request_error", param, code)
    assert response.json()["error"]["message"].startswith(f"{param}: ")


def test_values_that_ask_for_nothing_are_accepted(river: TestClient) -> None:
    plain = without_ids(respond(river).json())
    neutral = {name: values[0] for name, values in NEUTRAL.items() if values}
    everything = neutral | dict.fromkeys(NEUTRAL.keys() - neutral.keys())
    assert without_ids(respond(river, **everything).json()) == plain


def test_another_model_is_404(river: TestClient) -> None:
    assert error_of(respond(river, model="gpt-9")) == (404, "invalid_request_error", "model", "model_not_found")
