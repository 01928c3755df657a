"""The same front door as a good aiohttp program: its low-level server, one client session, on uvloop."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
import time
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from bench.proxy import scene
from bench.proxy.roles import talk
from libs.common.relay.names import CLUSTER_RESPONSE_DROPPED, HOP_BY_HOP, KUBERNETES_REQUEST
from services.auth_proxy.figures import Figures

_PREFIX = "/k8s/clusters/"
_SMALL = 64 * 1024
_PASSED = frozenset(name.decode() for name in KUBERNETES_REQUEST)
_DROPPED = frozenset(name.decode() for name in HOP_BY_HOP | CLUSTER_RESPONSE_DROPPED)


class AuditLines:
    """JSON lines, written twice a second beside the loop."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._queue: list[dict[str, Any]] = []

    def write(self, record: dict[str, Any]) -> None:
        self._queue.append(record)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            records, self._queue = self._queue, []
            await asyncio.to_thread(self._append, records)

    def _append(self, records: list[dict[str, Any]]) -> None:
        with self._file.open("a", encoding="ascii") as out:
            out.writelines(json.dumps(record) + "\n" for record in records)


class Door:
    """One handler for everything; `tokens` by name: hash and identity headers."""

    def __init__(self, config: dict[str, Any], session: aiohttp.ClientSession, audit: AuditLines) -> None:
        self._tokens = config["tokens"]
        self._base = f"https://127.0.0.1:{config['backend']}"
        self._session = session
        self._audit = audit
        self._figures = Figures()
        self._open: dict[int, web.BaseRequest] = {}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        began = time.perf_counter()
        cluster, _, inside = request.raw_path[len(_PREFIX) :].partition("/")
        who = self._authenticate(request.headers.get("Authorization", ""))
        self._open[id(request)] = request
        sent = 0
        try:
            if who is None or not request.raw_path.startswith(_PREFIX):
                response: web.StreamResponse = web.Response(status=401)
            else:
                response, sent = await self._relay(request, who, f"{self._base}/{inside}")
        finally:
            del self._open[id(request)]
        self._note(
            request, who, cluster, "/" + inside.partition("?")[0], response.status, sent, time.perf_counter() - began
        )
        return response

    def _authenticate(self, value: str) -> dict[str, Any] | None:
        kind, _, rest = value.removeprefix("Bearer ").partition("_")
        name, _, secret = rest.partition("_")
        who = self._tokens.get(name) if kind == "hm" else None
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return who if hmac.compare_digest(digest, who["hash"] if who else "0" * 64) else None

    async def _relay(self, request: web.BaseRequest, who: dict[str, Any], url: str) -> tuple[web.StreamResponse, int]:
        headers = CIMultiDict((name, value) for name, value in request.headers.items() if name.lower() in _PASSED)
        headers["Host"] = "kubernetes"
        headers["Authorization"] = scene.API_CREDENTIAL
        for name, *values in who["identity"]:
            for value in values:
                headers.add(name, value)
        body = request.content if request.can_read_body else None
        target = URL(url, encoded=True)
        async with self._session.request(
            request.method, target, headers=headers, data=body, allow_redirects=False
        ) as answer:
            kept = CIMultiDict((n, v) for n, v in answer.headers.items() if n.lower() not in _DROPPED)
            if answer.content_length is not None and answer.content_length <= _SMALL:
                data = await answer.read()
                return web.Response(status=answer.status, headers=kept, body=data), len(data)
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            sent = 0
            async for piece in answer.content.iter_any():
                sent += len(piece)
                await response.write(piece)
            await response.write_eof()
            return response, sent

    def _note(
        self, request: web.BaseRequest, who: dict[str, Any] | None, cluster: str, path: str, status: int, sent: int, took: float
    ) -> None:  # fmt: skip
        verb = "watch" if "watch=true" in request.raw_path else request.method.lower()
        self._figures.observe(True, verb, status, took, 0, sent)
        user, uid = (who["user"], who["uid"]) if who else ("", "")
        self._audit.write(
            {
                "event": "call_ended", "time": round(time.time(), 3), "user": user, "user_uid": uid, "cluster": cluster, "verb": verb,
                "method": request.method, "path": path, "status": status, "bytes_out": sent,
                "duration_ms": round(took * 1000, 2), "client": request.remote or "",
            }
        )  # fmt: skip


async def serve(config: dict[str, Any]) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(config["certificate"], config["key"])
    api = ssl.create_default_context(cafile=config["backend_ca"])
    audit = AuditLines(Path(config["audit_file"]))
    connector = aiohttp.TCPConnector(limit=0, ssl=api, keepalive_timeout=30)
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        ) as session,
        asyncio.TaskGroup() as tasks,
    ):  # fmt: skip
        tasks.create_task(audit.run(), name="audit")
        server = web.Server(Door(config, session, audit).handle, access_log=None, keepalive_timeout=120)
        listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, ssl=tls, backlog=4096)
        await talk.serve(port=listening.sockets[0].getsockname()[1])


if __name__ == "__main__":
    talk.run(serve)
