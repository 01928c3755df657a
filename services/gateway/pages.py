"""The UI's files: read once at start, served with what keeps a browser from doing anything else with them.

The page names its scripts and style, and scripts each other, by the content of all: they may be kept for ever and never fit another page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

from aiohttp import web

from libs.common import errors
from services.gateway.answers import answer_cached
from services.gateway.call import Call

INDEX = "index.html"
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FOR_EVER = "public, immutable, max-age=31536000"


@dataclass(frozen=True, slots=True)
class File:
    """`digest` names the content of all files: an address that carries it never has another one."""

    body: bytes
    content_type: str
    digest: str


class Pages:
    """Handlers of `/` and `/ui`. Public: there is nothing in them that is not in the source."""

    def __init__(self, files: Mapping[str, File]) -> None:
        self._files = files

    async def start(self, call: Call) -> web.StreamResponse:
        """The address that people type. Relative, as the public name is the front door's business."""
        return web.Response(status=307, headers={**HEADERS, "Location": "/ui/", "Cache-Control": "no-cache"})

    async def file(self, call: Call) -> web.StreamResponse:
        """One file; the page itself for the folder. Raises NotFound."""
        found = self._files.get(call.path("file") or INDEX)
        if found is None:
            raise errors.NotFound("the UI has no such page: start at /ui/")
        response = answer_cached(call.request, found.body, f"{found.content_type}; charset=utf-8")
        response.headers.update(HEADERS)
        if call.query("v") == found.digest:
            response.headers["Cache-Control"] = FOR_EVER
        return response


def read_files() -> dict[str, File]:
    """All files of the package's folder `ui` by name, each with the versions of what it loads."""
    found = {
        entry.name: entry.read_bytes()
        for entry in resources.files("services.gateway").joinpath("ui").iterdir()
        if entry.name.rpartition(".")[2] in TYPES
    }
    # One version for all: modules load each other, and none may ever meet another release's.
    version = hashlib.sha256(b"".join(found[name] for name in sorted(found))).hexdigest()[:16]
    return {name: _make(name, _versioned(body, found, version), version) for name, body in found.items()}


def _versioned(body: bytes, names: Iterable[str], version: str) -> bytes:
    for name in names:
        body = body.replace(f'"/ui/{name}"'.encode(), f'"/ui/{name}?v={version}"'.encode())
    return body


def _make(name: str, body: bytes, version: str) -> File:
    return File(body, TYPES[name.rpartition(".")[2]], version)
