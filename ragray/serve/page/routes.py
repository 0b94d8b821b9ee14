"""The page and the documentation of the routes. In: the files of this folder. Out: routes that serve them, safely and cacheably.

The files name each other by relative addresses, so that they work behind any prefix. All but the two documents lie below a
folder that is named by a digest of all, so that a browser keeps them for good and never mixes two versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).parent
DOCUMENTS = {"": "index.html", "docs": "docs.html"}
"""The documents by their path."""

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
KEPT, ASKED = "public, max-age=31536000, immutable", "no-cache"
"""Caching of a file under its own version, and of everything else: kept, but asked for each time."""


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is sent."""

    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        """Return its tag: a digest of the content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    def response(self, request: Mapping[str, str], caching: str = ASKED) -> Response:
        """Answer a request with these headers: with the content, or with 304 where the client holds it."""
        headers = {**SAFE_HEADERS, "Cache-Control": caching, "ETag": self.etag}
        held = [tag.strip().removeprefix("W/") for tag in request.get("if-none-match", "").split(",")]
        if self.etag in held or "*" in held:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


@dataclass(frozen=True, slots=True)
class Site:
    """The files by name, and the digest of all of them."""

    files: Mapping[str, StaticFile]
    version: str

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths at which the documents and the files of this version lie."""
        files = self.files.keys() - DOCUMENTS.values()
        return (*(f"/{path}" for path in DOCUMENTS), *(f"/page/{self.version}/{name}" for name in sorted(files)))

    def find(self, path: str) -> tuple[StaticFile, str] | None:
        """Return the file at a path without its first slash, and how it is cached; None where there is none."""
        if path in DOCUMENTS:
            return self.files[DOCUMENTS[path]], ASKED
        match path.split("/"):
            case ["page", version, name] if name in self.files:
                return self.files[name], KEPT if version == self.version else ASKED
        return None


@cache
def site() -> Site:
    """Read the files; the documents name the others below the folder of their version."""
    found = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES}
    version = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in found.values())).hexdigest()[:16]
    for name in DOCUMENTS.values():
        found[name] = found[name].replace(b'"page/', f'"page/{version}/'.encode())
    return Site({name: StaticFile(content, TYPES[Path(name).suffix]) for name, content in found.items()}, version)


def add_page(app: FastAPI) -> None:
    """Add the routes of the page at `/`, of the documentation at `/docs`, and of the files that both name."""
    static = partial(app.api_route, methods=["GET", "HEAD"], include_in_schema=False)

    @static("/")
    async def page(request: Request) -> Response:
        return _respond(request, "")

    @static("/docs")
    async def docs(request: Request) -> Response:
        return _respond(request, "docs")

    @static("/page/{version}/{name}")
    async def file(request: Request, version: str, name: str) -> Response:
        return _respond(request, f"page/{version}/{name}")


def _respond(request: Request, path: str) -> Response:
    """Answer with the file at a path; raises `HTTPException` 404 where there is none."""
    if (found := site().find(path)) is None:
        raise HTTPException(404)
    return found[0].response(request.headers, found[1])
