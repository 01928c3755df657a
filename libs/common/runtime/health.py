"""Probes and metrics of one process over HTTP: /healthz (alive), /readyz (caught up), /metrics (Prometheus)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from libs.common.observe import metrics, probes


@asynccontextmanager
async def serve_health(
    listen: str, address_file: Path | None, waiting_for: Callable[[], list[str]]
) -> AsyncIterator[str]:
    """Serve while the context is open; gives the address that was bound. Raises Unavailable when it cannot be had."""
    answers = {
        "/healthz": lambda: probes.verdict([]),
        "/readyz": lambda: probes.verdict(waiting_for()),
        "/metrics": lambda: probes.Reply(200, metrics.render(), metrics.CONTENT_TYPE),
    }
    async with probes.serve(listen, answers) as (host, port):
        address = f"http://{host}:{port}"
        if address_file is not None:
            await asyncio.to_thread(address_file.write_text, address, encoding="utf-8")
        yield address


async def measure_loop_lag(period_s: float = 5.0) -> None:
    """Observe how late the loop wakes this task, for ever."""
    lag = metrics.loop_lag_seconds()
    while True:
        before = time.monotonic()
        await asyncio.sleep(period_s)
        lag.observe(max(0.0, time.monotonic() - before - period_s))
