"""Probes and metrics of one process over HTTP: /healthz (alive), /readyz (caught up), /metrics (Prometheus)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from libs.common.observe import metrics


@asynccontextmanager
async def serve_health(listen: str, address_file: Path | None, waiting_for: Callable[[], list[str]]) -> AsyncIterator[str]:
    """Serve while the context is open; gives the address that was bound. Raises OSError when it is taken."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        missing = waiting_for()
        if missing:
            return web.Response(status=503, text="".join(f"waiting for {name}\n" for name in missing))
        return web.Response(text="ok\n")

    async def expose(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", expose)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        host, _, port = listen.rpartition(":")
        await web.TCPSite(runner, host, int(port)).start()
        bound_host, bound_port = runner.addresses[0][:2]
        address = f"http://{bound_host}:{bound_port}"
        if address_file is not None:
            await asyncio.to_thread(address_file.write_text, address, encoding="utf-8")
        yield address
    finally:
        await runner.cleanup()


async def measure_loop_lag(period_s: float = 5.0) -> None:
    """Observe how late the loop wakes this task, for ever."""
    lag = metrics.loop_lag_seconds()
    while True:
        before = time.monotonic()
        await asyncio.sleep(period_s)
        lag.observe(max(0.0, time.monotonic() - before - period_s))
