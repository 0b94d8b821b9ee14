"""The protocol (package `mcp`). In: tools. Out: an ASGI application that answers one message per POST, and keeps nothing between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from starlette.types import Receive, Scope, Send

from ragray.config import ServeConfig
from ragray.serve.access.settings import is_loopback
from ragray.serve.failure import failure_of
from ragray.serve.load.deadline import time_left
from ragray.serve.mcp.tools import FetchArguments, FetchedDocument, SearchArguments, SearchResults, Tools
from ragray.serve.schema import Wire

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
READS = types.ToolAnnotations(read_only_hint=True, open_world_hint=False)
SEARCH = types.Tool(
    name="search",
    title="Search the corpus",
    description="Return the passages of the corpus that are nearest to a query, best first.",
    input_schema=SearchArguments.model_json_schema(),
    output_schema=SearchResults.model_json_schema(),
    annotations=READS,
)
FETCH = types.Tool(
    name="fetch",
    title="Read a passage",
    description="Return a passage of the corpus with its metadata, by the `id` that `search` returned.",
    input_schema=FetchArguments.model_json_schema(),
    output_schema=FetchedDocument.model_json_schema(),
    annotations=READS,
)
INSTRUCTIONS = "Search the corpus of this service, then fetch the passages that are to be cited."


class McpServer:
    """Answers a POST in a session of its own: any replica can answer any message, and a client that leaves leaves nothing behind."""

    def __init__(self, tools: Tools, config: ServeConfig) -> None:
        self._tools: Mapping[str, Callable[[Mapping[str, object]], Awaitable[Wire]]]
        self._tools = {SEARCH.name: tools.search, FETCH.name: tools.fetch}
        self._timeout_s = config.request_timeout_s
        self._max_bytes = config.max_body_bytes
        self._security = security_of(config)
        self._server = Server[dict[str, Any]](
            "ragray",
            version="1",
            instructions=INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a message."""
        session = StreamableHTTPSessionManager(
            self._server,
            json_response=True,
            stateless=True,
            security_settings=self._security,
            max_request_body_size=self._max_bytes,
        )
        async with session.run():
            await session.handle_request(scope, receive, send)

    async def _list(self, context: object, params: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[SEARCH, FETCH])

    async def _call(self, context: object, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Call a tool; what goes wrong in it is its result, for the model to read."""
        call = self._tools.get(params.name)
        if call is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool '{params.name}', only {', '.join(self._tools)}")
        try:
            async with asyncio.timeout(time_left(self._timeout_s)):
                result = await call(params.arguments or {})
        except Exception as err:
            said = types.TextContent(type="text", text=failure_of(err).message)
            return types.CallToolResult(content=[said], is_error=True)
        said = types.TextContent(type="text", text=result.model_dump_json())
        return types.CallToolResult(content=[said], structured_content=result.model_dump(mode="json"))


def security_of(config: ServeConfig) -> TransportSecuritySettings:
    """Return which names the service may be called by.

    A service without keys on this machine answers only requests that name this machine, so that no web page reaches it under a name
    of its own that leads here (DNS rebinding). Elsewhere keys protect it, or the settings let everybody in.
    """
    open_to_all = config.keys_file or config.insecure or "*" in config.cors_origins
    if open_to_all or not is_loopback(config.host):
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    names = (*LOCAL_NAMES, config.host)
    hosts = [*names, *(f"{name}:*" for name in names)]
    origins = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=[*origins, *config.cors_origins])
