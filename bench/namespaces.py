"""From `create namespace` through the hub to a member's first successful call in it: `python -m bench.namespaces [COUNT]`.

A real hub with its own cluster, one member of a project, one namespace after the other. Two times are printed for each percentile: until the create is
answered, and from that answer to the first call that is allowed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from integration.flows.conftest import wait_active
from integration.flows.test_projects_rbac import access_of, put_project
from integration.harness.hub import Hub


async def measure(hub: Hub, count: int) -> tuple[list[float], list[float]]:
    admin, person = await hub.admin(), await hub.person("bea")
    await admin.sees("local", "create", "namespace", "bench-first")
    await put_project(hub, "bench", "local/bench-first")
    await admin.must("grant", "--user", "bea", "--role", "project-owner", "--project", "bench")
    await person.fetch_kubeconfig()
    url, token = access_of(person, "local")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    made: list[float] = []
    allowed: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=hub.tls()), headers=headers) as session:
        for number in range(count):
            name = f"bench-{number}"
            body = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            began = time.monotonic()
            async with session.post(f"{url}/api/v1/namespaces", data=body) as answer:
                if answer.status != 201:
                    raise SystemExit(f"{name}: {answer.status} {await answer.text()}")
            answered = time.monotonic()
            while True:
                async with session.get(f"{url}/api/v1/namespaces/{name}/pods") as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0.005)
            made.append(answered - began)
            allowed.append(time.monotonic() - answered)
    return made, allowed


def tell(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p50, p99 = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"{what}: n={len(ordered)} p50={p50:.3f} s p99={p99:.3f} s longest={ordered[-1]:.3f} s")


async def main(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-namespaces-") as folder:
        async with Hub(Path(folder)) as hub:
            await wait_active(hub, "local")
            made, allowed = await measure(hub, count)
    tell("create answered", made)
    tell("first call after that", allowed)
    tell("both", [a + b for a, b in zip(made, allowed, strict=True)])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
