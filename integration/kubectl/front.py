"""A stand-in for the front door, with TLS as kubectl sends no token without: a bearer token `as-<user>` becomes a sealed envelope, everything else passes as it is."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from libs.common.crypto.ca import generate_ca, issue_server
from tests.gateway.support import Hub

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "authorization", "content-encoding"}


class Front:
    """Keeps the requests that passed, for tests that look at what kubectl sends."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self._hub = hub
        self._folder = folder
        self.ca_file = folder / "ca.pem"
        self.seen: list[tuple[str, str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs))
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        by = token.removeprefix("as-") if token.startswith("as-") else None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP} | self._hub.headers(by)
        body = await request.read()
        timeout = aiohttp.ClientTimeout(total=None)
        url = f"http://hub{request.path_qs}"
        async with self._hub.session.request(
            request.method,
            url,
            headers=headers,
            data=body or None,
            timeout=timeout,
            allow_redirects=False,
            skip_auto_headers=("Content-Type",),
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            for key, value in answer.headers.items():
                if key.lower() not in _HOP:
                    response.headers.add(key, value)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    def _make_tls(self) -> ssl.SSLContext:
        ca = generate_ca("test", self._hub.now())
        server = issue_server(ca, ["127.0.0.1"], self._hub.now())
        self.ca_file.write_bytes(ca.certificate)
        certificate = self._folder / "server.pem"
        certificate.write_bytes(server.certificate + server.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        return context

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Front]:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._make_tls()).start()
        self.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()
