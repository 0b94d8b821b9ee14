"""OpenAI's own client, unmodified, over HTTP: what it asks is answered in the types that it knows, and errors are those that it raises."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from starlette.types import ASGIApp, Receive, Scope, Send

from ragray.serve.failure import Failure
from tests.serve.online import listening
from tests.serve.openai.test_chat import ELBE
from tests.serve.river import river_client

QUESTION = "Which river flows through Hamburg?"
URL = "urn:ragray:passage:elbe%230"


class Shaky:
    """Refuses the first requests as an overloaded service does, then lets all through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.refusals = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and self.refusals:
            self.refusals -= 1
            app = Failure(429, "overloaded", "64 requests are waiting", retry_after_s=0).response()
        await app(scope, receive, send)


@pytest.fixture(scope="module")
def service(river_index: Path) -> Iterator[tuple[OpenAI, Shaky]]:
    with river_client(river_index) as river, listening(shaky := Shaky(river.app)) as address:
        client = OpenAI(base_url=f"{address}/v1", api_key="none")
        yield client, shaky
        client.close()


@pytest.fixture
def client(service: tuple[OpenAI, Shaky]) -> OpenAI:
    return service[0]


def test_a_chat_completion_whole_and_streamed(client: OpenAI) -> None:
    asked = {"model": "run-1", "messages": [{"role": "user", "content": QUESTION}]}
    whole = client.chat.completions.create(**asked)
    [note] = whole.choices[0].message.annotations or []
    assert (whole.choices[0].message.content, note.url_citation.url) == (ELBE, URL)
    stream = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == ELBE
    assert stream[-1].usage == whole.usage


def test_a_response_whole_and_streamed(client: OpenAI) -> None:
    whole = client.responses.create(model="run-1", input=QUESTION, instructions="Be brief.")
    assert (whole.output_text, whole.status) == (ELBE, "completed")
    with client.responses.stream(model="run-1", input=QUESTION, instructions="Be brief.") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert (kinds[0], kinds[-1], final.output_text) == ("response.created", "response.completed", ELBE)
    for response in (whole, final):
        [message] = response.output
        [note] = message.content[0].annotations
        assert (note.type, note.url, note.start_index, note.end_index) == ("url_citation", URL, 0, len(ELBE))


def test_a_response_is_gone_on_from_by_sending_its_output_back(client: OpenAI) -> None:
    first = client.responses.create(model="run-1", input="Do owls sleep?")
    messages = [{"role": "user", "content": "Do owls sleep?"}, *first.output, {"role": "user", "content": QUESTION}]
    assert client.responses.create(model="run-1", input=messages).output_text == ELBE


def test_embeddings_and_models(client: OpenAI) -> None:
    models = {model.id for model in client.models.list()}
    [encoder] = models - {"run-1"}
    found = client.embeddings.create(model=encoder, input=["owls", "rivers"])
    assert [len(each.embedding) for each in found.data] == [64, 64]


def test_what_is_refused_is_raised_with_its_field_and_the_id_of_the_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="run-1", input=QUESTION, previous_response_id="resp_1")
    assert (refused.value.param, refused.value.code) == ("previous_response_id", "unsupported_parameter")
    assert len(refused.value.request_id or "") == 32
    with pytest.raises(openai.NotFoundError, match="'gpt-9' is not served here"):
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": QUESTION}])


def test_an_overloaded_service_is_asked_again_and_given_up_on_after_its_retries(service: tuple[OpenAI, Shaky]) -> None:
    client, shaky = service
    shaky.refusals = 1
    assert client.responses.create(model="run-1", input=QUESTION).output_text == ELBE
    shaky.refusals = 1
    with pytest.raises(openai.RateLimitError, match="64 requests are waiting"):
        client.with_options(max_retries=0).responses.create(model="run-1", input=QUESTION)
    assert shaky.refusals == 0
