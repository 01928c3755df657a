"""The parent's health port: one answer for all worker processes. /healthz, /readyz, /metrics, and /workers for people and tools.

Ready = every worker is. A metrics scrape asks all of them and labels each figure with its worker.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from services.auth_proxy import worker_metrics
from services.auth_proxy.worker_process import WorkerProcess

_HEAD_LIMIT = 16 * 1024
_PATIENCE_S = 10.0
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
_TEXT = "text/plain; charset=utf-8"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
Reply = tuple[int, str, bytes]


class Probes:
    """`current` gives the workers that count: of a pair that changes places, the one that serves."""

    def __init__(self, current: Callable[[], list[WorkerProcess | None]], is_stopping: Callable[[], bool]) -> None:
        self._current = current
        self._is_stopping = is_stopping
        self._answers: dict[str, Callable[[], Awaitable[Reply]]] = {
            "/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics, "/workers": self._workers,
        }  # fmt: skip

    async def serve(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._serve, host or None, port, limit=_HEAD_LIMIT)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                method, status, kind, body = await self._reply(head)
                writer.write(
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode("ascii")
                    + (b"" if method == "HEAD" else body)
                )
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # whoever asked has gone, or never finished asking
        finally:
            writer.close()

    async def _reply(self, head: bytes) -> tuple[str, int, str, bytes]:
        words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(words) != 3 or words[0] not in ("GET", "HEAD"):
            return "", 405, _TEXT, b"only GET and HEAD\n"
        answer = self._answers.get(words[1].partition("?")[0])
        if answer is None:
            return words[0], 404, _TEXT, f"there are {', '.join(sorted(self._answers))}\n".encode()
        return words[0], *await answer()

    async def _healthz(self) -> Reply:
        return 200, _TEXT, b"ok\n"

    async def _readyz(self) -> Reply:
        missing = ["waiting for stopping"] if self._is_stopping() else []
        workers = self._current()
        answers = await asyncio.gather(*(w.ask("/readyz") for w in workers if w is not None))
        gone = sum(1 for w in workers if w is None)
        missing += [f"worker {gone} of {len(workers)} is not running"] if gone else []
        for worker, (status, body) in zip([w for w in workers if w is not None], answers, strict=True):
            if status != 200:
                words = body.decode("utf-8", "replace").split("\n")
                missing += [f"worker {worker.number}: {line}" for line in words if line]
        if missing:
            return 503, _TEXT, "".join(f"{line}\n" for line in missing).encode()
        return 200, _TEXT, b"ok\n"

    async def _metrics(self) -> Reply:
        workers = [w for w in self._current() if w is not None]
        answers = await asyncio.gather(*(w.ask("/metrics") for w in workers))
        texts = {
            worker.number: body.decode("utf-8")
            for worker, (status, body) in zip(workers, answers, strict=True)
            if status == 200
        }
        up = "".join(f'herdsman_worker_up{{worker="{w.number}"}} {int(w.number in texts)}\n' for w in workers)
        head = "# HELP herdsman_worker_up Whether a worker process answers\n# TYPE herdsman_worker_up gauge\n"
        return 200, _METRICS, (head + up + worker_metrics.merge(texts)).encode()

    async def _workers(self) -> Reply:
        workers = [w for w in self._current() if w is not None]
        ready = await asyncio.gather(*(w.is_ready() for w in workers))
        facts = [
            {"worker": w.number, "pid": w.pid, "ready": is_ready} for w, is_ready in zip(workers, ready, strict=True)
        ]
        return 200, "application/json", json.dumps({"workers": facts}).encode() + b"\n"
