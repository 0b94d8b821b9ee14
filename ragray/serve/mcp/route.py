"""`POST /mcp`. In: an application. Out: it with the route, or, where the package `mcp` is missing, with one that names the extra."""

from __future__ import annotations

from importlib.util import find_spec

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ragray.config import ServeConfig
from ragray.serve.answerer import Answerer
from ragray.serve.failure import Failure
from ragray.serve.mcp.tools import Tools

PATH = "/mcp"
MISSING = Failure(
    501, "not_installed", "mcp: the package is missing: pip install 'ragray[mcp]', then start the service again"
)


def add_mcp(app: FastAPI, answerer: Answerer, config: ServeConfig) -> None:
    """Add the route. A stream that waits for messages of the server (GET) is not offered: it never sends any."""
    if find_spec("mcp") is None:
        app.router.routes.append(Route(PATH, _missing, methods=["GET", "POST", "DELETE"]))
        return
    from ragray.serve.mcp.server import McpServer

    app.router.routes.append(Route(PATH, McpServer(Tools(answerer, config), config), methods=["POST"]))


async def _missing(request: Request) -> Response:
    return MISSING.response()
