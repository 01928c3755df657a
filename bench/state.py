"""The state store of a running hub: how long a durable write takes, and how soon an informer elsewhere has it."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from libs.common.bus.nats import NatsOptions, connect
from libs.common.contracts.permissions import inbox_prefix
from libs.common.observe import log
from libs.common.store.informer import Change, Informer
from libs.common.store.jetstream import JetStreamStore

WRITES = 300
VALUE = b"x" * 1024


@dataclass(frozen=True)
class StateFigures:
    write_p50_ms: float
    write_p99_ms: float
    watch_p50_ms: float
    watch_p99_ms: float


async def measure_state(directory: Path) -> StateFigures:
    """Writes as the project service does (its bucket is empty), watched over a second connection as the gateway does."""
    log.configure("bench", "warning")
    configs = directory / "data" / "config"
    async with connect(_options(configs, "project")) as writing, connect(_options(configs, "gateway")) as reading:
        store = JetStreamStore(writing, "project")
        informer = Informer(JetStreamStore(reading, "project"), "bench", name="bench")
        arrived: dict[str, float] = {}

        def note(change: Change) -> None:
            arrived.setdefault(change.key, time.perf_counter())

        informer.subscribe(note)
        following = asyncio.create_task(informer.run(), name="bench informer")
        async with asyncio.timeout(10):
            await informer.synced.wait()
        began: dict[str, float] = {}
        took: list[float] = []
        revisions: dict[str, int] = {}
        for index in range(WRITES):
            key = f"bench.w{index}"
            began[key] = time.perf_counter()
            revisions[key] = await store.create(key, VALUE)
            took.append(time.perf_counter() - began[key])
        await informer.wait_revision(max(revisions.values()), 10)
        delays = [max(0.0, arrived[key] - began[key]) for key in began]
        for key, revision in revisions.items():
            await store.delete(key, b"", revision)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return StateFigures(*(1000 * f for f in (*_quantiles(took), *_quantiles(delays))))


def _options(configs: Path, service: str) -> NatsOptions:
    settings = json.loads((configs / f"{service}.json").read_text(encoding="utf-8"))
    return NatsOptions(
        servers=tuple(settings["nats_url"]), creds_file=Path(settings["nats_creds"]), name=f"bench-{service}",
        inbox_prefix=inbox_prefix(service),
    )  # fmt: skip


def _quantiles(values: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(values, n=100)
    return cuts[49], cuts[98]
