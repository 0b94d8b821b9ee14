"""What each client must be able to do. In: an address and a key. Out: a line for each check. Knows the clients, and no ragray."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version

import httpx2
import openai
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

QUESTION = "Which river flows through Hamburg?"
PACKAGES = ("openai", "langchain-openai", "llama-index-llms-openai-like", "llama-index-core", "mcp")


class Service:
    """The service that is checked."""

    def __init__(self, address: str, key: str) -> None:
        self.address, self.key, self.base = address, key, f"{address}/v1"
        self.openai = openai.OpenAI(base_url=self.base, api_key=key)
        served = {model.model_extra["used_for"]: model.id for model in self.openai.models.list()}
        self.model, self.encoder = served["chat"], served.get("embeddings", "")


def check_openai_chat_whole_and_streamed(service: Service) -> None:
    asked = {"model": service.model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16}
    whole = service.openai.chat.completions.create(**asked)
    assert whole.choices[0].message.content and whole.usage.total_tokens
    assert whole.choices[0].message.annotations[0].url_citation.url
    chunks = list(service.openai.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def check_openai_responses_whole_and_streamed(service: Service) -> None:
    asked = {"model": service.model, "input": QUESTION, "max_output_tokens": 16}
    whole = service.openai.responses.create(**asked)
    with service.openai.responses.stream(**asked) as stream:
        events = list(stream)
    kinds, final = [event.type for event in events], events[-1].response  # `get_final_response` takes no incomplete one
    assert whole.output_text and final.output_text == whole.output_text, (whole.output_text, final.output_text)
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete")
    assert final.output[0].content[0].annotations == whole.output[0].content[0].annotations != []


def check_openai_embeddings(service: Service) -> None:
    first, second = service.openai.embeddings.create(model=service.encoder, input=["owls", "rivers"]).data
    assert len(first.embedding) == len(second.embedding) > 0 and first.embedding != second.embedding


def check_openai_errors(service: Service) -> None:
    try:
        service.openai.responses.create(model=service.model, input=QUESTION, tools=[{"type": "web_search"}])
    except openai.BadRequestError as err:
        assert err.param == "tools" and err.request_id
    else:
        raise AssertionError("tools were not refused")
    if service.key != "none":
        try:
            openai.OpenAI(base_url=service.base, api_key="wrong").models.list()
        except openai.AuthenticationError as err:
            assert err.code == "invalid_api_key"
        else:
            raise AssertionError("a wrong key was let in")


def check_langchain_chat_whole_and_streamed(service: Service) -> None:
    chat = ChatOpenAI(base_url=service.base, api_key=service.key, model=service.model, max_tokens=16)
    said = chat.invoke([("system", "Be brief."), ("human", QUESTION)])
    assert said.content and said.usage_metadata["total_tokens"]
    assert (
        "".join(chunk.content for chunk in chat.stream([("system", "Be brief."), ("human", QUESTION)])) == said.content
    )


def check_langchain_citations_by_responses(service: Service) -> None:
    options = {"base_url": service.base, "api_key": service.key, "model": service.model, "max_tokens": 16}
    chat = ChatOpenAI(**options, use_responses_api=True)
    for said in (chat.invoke(QUESTION), _joined(chat.stream(QUESTION))):
        cited = [note for block in said.content_blocks for note in block.get("annotations", [])]
        assert cited and all(note["type"] == "citation" and note["url"] for note in cited), said.content_blocks


def _joined(chunks: object) -> object:
    whole = None
    for chunk in chunks:
        whole = chunk if whole is None else whole + chunk
    return whole


def check_llama_index_chat_whole_and_streamed(service: Service) -> None:
    llm = OpenAILike(
        api_base=service.base,
        api_key=service.key,
        model=service.model,
        is_chat_model=True,
        max_tokens=16,
        temperature=0,
    )
    messages = [ChatMessage(role="user", content=QUESTION)]
    whole = llm.chat(messages).message.content
    assert whole and "".join(part.delta or "" for part in llm.stream_chat(messages)) == whole
    assert llm.complete(QUESTION).text == whole


def check_mcp_search_and_fetch(service: Service) -> None:
    async def work(mode: str) -> None:
        headers = {"Authorization": f"Bearer {service.key}"}
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(f"{service.address}/mcp", http_client=http), mode=mode) as client,
        ):
            assert {tool.name for tool in (await client.list_tools()).tools} == {"search", "fetch"}
            found = json.loads((await client.call_tool("search", {"query": QUESTION})).content[0].text)["results"]
            fetched = await client.call_tool("fetch", {"id": found[0]["id"]})
            assert fetched.structured_content["text"] == found[0]["text"]
            assert (await client.call_tool("fetch", {"id": "no such passage"})).is_error

    for mode in ("auto", "legacy"):
        asyncio.run(work(mode))


def main() -> int:
    """Run every check; returns how many do not hold."""
    print(", ".join(f"{name} {version(name)}" for name in PACKAGES), flush=True)
    service, failed = Service(*sys.argv[1:3]), 0
    checks: dict[str, Callable[[Service], None]]
    checks = {name.removeprefix("check_"): check for name, check in globals().items() if name.startswith("check_")}
    for name, check in checks.items():
        try:
            check(service)
        except Exception:
            traceback.print_exc()
            failed += 1
            print(f"FAILED  {name}", flush=True)
        else:
            print(f"holds   {name}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
