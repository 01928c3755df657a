"""`python -m bench.grants`: who may do what, at the size of a large hub: 10,000 users, 1,000 clusters, 5,000 projects, 50,000 bindings.

All of it lies in a nats-server of this bench's own; what is measured are processes that follow it as services do (`LiveGrants` over informers).
`decision`: CPU of one call of `is_allowed`, or of `synthetic_groups` for one cluster, by a random caller about a random object, half of them about
something that the caller has a role in; of many rounds the one with the least p50, and the median one. `warm`: the caller was asked about before. `cold`:
the first call of a caller after somebody's binding was changed. `compile`: CPU from the arrival of a changed binding in a process to the snapshot that counts
it. `checks`: CPU of what the owner compares before it writes a binding, or takes one away. `spread`: from before the durable write to the first decision by it,
in three other processes, with 100 writes each second; by the clock on the wall.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.grants_world import World, binding, cluster_scope, entries
from integration.harness.nats import NatsServer
from libs.common.bus import accounts
from libs.common.bus.jetstream_api import JetStreamApi
from libs.common.bus.nats import NatsBus, connect
from libs.common.contracts import permissions
from libs.common.observe import log
from libs.common.resources import codec
from libs.common.resources.registry import BUCKETS
from libs.common.store.buckets import ensure_bucket
from libs.common.store.jetstream import JetStreamStore

FOLLOWERS = ("auth_proxy", "gateway", "cluster_controller")
PER_FLUSH = 2_000
BUDGETS = {
    "p50": "≤ 10 µs",
    "p99": "≤ 100 µs",
    "compile of one binding, worst": "≤ 5 ms",
    "write to visible, p99": "≤ 200 ms",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--divide", type=int, default=1, help="make everything this many times smaller")
    parser.add_argument("--rate", type=int, default=100, help="writes each second while the spread is measured")
    parser.add_argument("--seconds", type=int, default=15, help="how long the spread is measured")
    parser.add_argument("--only", choices=["decisions", "spread"], help="one part of it")
    wanted = parser.parse_args()
    log.configure("bench", "error")
    world = World().scaled(wanted.divide) if wanted.divide > 1 else World()
    with NatsServer() as server, tempfile.TemporaryDirectory(prefix="herdsman-bench-") as directory:
        sys.stdout.write(f"{'what':<52}{'measured':>16}{'budget':>12}\n")
        asyncio.run(measure(server, Path(directory), world, wanted.rate, wanted.seconds, wanted.only))
    return 0


def tell(figures: dict[str, str]) -> None:
    """Rows as they come: the whole takes minutes."""
    for what, measured in figures.items():
        budget = BUDGETS.get(what) or (BUDGETS.get(what.rpartition(", ")[2], "") if what.startswith("decision") else "")
        sys.stdout.write(f"{what:<52}{measured:>16}{budget:>12}\n")
    sys.stdout.flush()


async def measure(server: NatsServer, directory: Path, world: World, rate: int, seconds: int, only: str | None) -> None:
    async with connect(server.connect_as("administration")) as bus:
        began = time.monotonic()
        await load(bus, world)
        sys.stderr.write(f"loaded in {time.monotonic() - began:.0f} s\n")
        if only != "spread":
            async with follower(server, directory, FOLLOWERS[0], world, "measure") as process:
                async for said in said_by(process):
                    tell(said)
        if only != "decisions":
            tell(await measure_spread(server, directory, bus, world, rate, seconds))


async def load(bus: NatsBus, world: World) -> None:
    """Straight into the streams, many under way; a stream's own count says that all came."""
    api = JetStreamApi(bus.connection)
    for bucket in BUCKETS:
        await ensure_bucket(api, bucket)
    counts = dict.fromkeys(BUCKETS, 0)
    for number, (bucket, key, value) in enumerate(entries(world), 1):
        counts[bucket] += 1
        await bus.connection.publish(f"$KV.{bucket}.{key}", value)
        if number % PER_FLUSH == 0:
            await _caught_up(api, counts)
    await _caught_up(api, counts)


async def _caught_up(api: JetStreamApi, counts: dict[str, int]) -> None:
    async with asyncio.timeout(60):
        for bucket, count in counts.items():
            while int((await api.call(f"STREAM.INFO.KV_{bucket}"))["state"]["last_seq"]) < count:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.005)


async def measure_spread(
    server: NatsServer, directory: Path, bus: NatsBus, world: World, rate: int, seconds: int
) -> dict[str, str]:
    """Bindings made and taken away at a steady rate, by one writer as authz is; both clocks are this machine's monotonic one."""
    store = JetStreamStore(bus, "authz")
    began: dict[str, float] = {}
    took: list[float] = []
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(follower(server, directory, who, world, "follow")) for who in FOLLOWERS
        ]
        listening = [said_by(process) for process in processes]
        for each in listening:
            assert (await anext(each)) == {"ready": True}
        revisions: dict[str, int] = {}

        async def write(name: str, *, away: bool) -> None:
            made = binding(name, f"bench:user:{name}", "cluster-viewer", cluster_scope(len(began) % world.clusters))
            key, value = f"roletemplatebindings.{name}", codec.encode(made, f"bench-{name}-{away}")
            event = f"{name}-{'away' if away else 'given'}"
            began[event] = time.monotonic()
            if away:
                await store.delete(key, codec.encode(made, f"bench-{name}-{away}", deleted=True), revisions[name])
            else:
                revisions[name] = await store.create(key, value)
            took.append(time.monotonic() - began[event])

        start = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(rate * seconds):
                await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
                older = f"w{number - rate}"
                away = number % 2 == 1 and older in revisions
                tasks.create_task(write(older if away else f"w{number}", away=away), name=f"write {number}")
        await write("end", away=False)
        seen = [{k: float(v) for part in [p async for p in each] for k, v in part.items()} for each in listening]
    delays = [times[event] - at for event, at in began.items() for times in seen]
    p50, p99 = _quantiles(delays)
    return {
        "write of a binding on disk, p50": f"{1e3 * statistics.median(took):.1f} ms",
        "write to visible, p50": f"{1e3 * p50:.1f} ms",
        "write to visible, p99": f"{1e3 * p99:.1f} ms",
        "write to visible, worst": f"{1e3 * max(delays):.1f} ms",
    }


@asynccontextmanager
async def follower(
    server: NatsServer, directory: Path, who: str, world: World, work: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with `who`'s credential that does `work`, and the administration's to write with where it must."""
    now = datetime.now(UTC)
    files = {
        "own": accounts.service_credentials(server.keys, who, now),
        "administration": accounts.administration_credentials(server.keys, now),
    }
    paths = {name: directory / f"{who}-{name}.creds" for name in files}
    for name, text in files.items():
        paths[name].write_text(text, encoding="ascii")
        paths[name].chmod(0o600)
    order = {
        "work": work, "url": server.url, "creds": str(paths["own"]), "inbox": permissions.inbox_prefix(who),
        "administration": str(paths["administration"]), "world": {f: getattr(world, f) for f in world.__slots__},
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.grants_follower", json.dumps(order),
        stdout=asyncio.subprocess.PIPE, env=dict(os.environ), limit=64 * 1024 * 1024,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def said_by(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    """What a follower prints, a document a line."""
    assert process.stdout is not None
    async for line in process.stdout:
        yield json.loads(line)


def _quantiles(values: Sequence[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(values, n=100)
    return cuts[49], cuts[98]


if __name__ == "__main__":
    sys.exit(main())
