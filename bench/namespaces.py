"""`python -m bench.namespaces`: from the wish for a namespace in a project to its member's first call there, while the project grows.

A hub with all its processes, a real control plane with its agent, one project. Namespaces come into it one after another: made by `POST
/v1/projects/{name}/namespaces`, or with `--found` brought in by a patch of the project when they are in the cluster already. Meanwhile the member,
on a connection of their own, asks for the pods of the namespace until the hub answers 200. Everything is told by the clock on the wall from before
the request: `hub write` until the hub's own watch shows the project with it; `notice` until the agent's first write for it, which is the namespace
(with `--found`: its label); `agent` until the cluster has the binding of the member's role; `first call` until the 200. `answer` is the hub's to the request.
Places at which a project becomes one part more are told apart: around 64, 128 and 256 namespaces.
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
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from integration.flows.outside import API, Agent, make_cluster, running
from integration.harness.hub import Hub, Person, eventually
from integration.kubelab.cluster import Cluster
from libs.common.kube.client import KubeClient
from libs.common.kube.kubeconfig import load_kubeconfig
from libs.common.kube.objects import labels_of
from libs.common.kube.reflector import Changed, Listed, Reflector
from services.agent.claims import PROJECT
from services.agent.owned import SELECTOR

CLUSTER, TEAM, MEMBER, ROLE = "grown", "growing", "jane", "project-viewer"
NAMESPACES = "/api/v1/namespaces"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/rolebindings"
EVERY_S = 0.01
PATIENCE_S = 60.0
BORDERS, AROUND = (64, 128, 256), 8
STEPS = ("hub write", "notice", "agent", "first call")
BUDGETS = {"p99": "≤ 1 s"}


@dataclass
class Marks:
    """When what was seen of each namespace first, on the monotonic clock."""

    written: dict[str, float] = field(default_factory=dict)
    touched: dict[str, float] = field(default_factory=dict)
    bound: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Took:
    """Seconds. `steps` in the order of `STEPS`; one that was seen out of turn took none."""

    total: float
    answer: float
    steps: tuple[float, ...]


@dataclass
class Stage:
    """Where it happens: what the hub and the member are asked with."""

    hub: Hub
    hub_access: tuple[str, str]
    member_access: tuple[str, str]
    direct: KubeClient
    marks: Marks
    watching: list[asyncio.Task[None]] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="how many namespaces come into the project")
    parser.add_argument(
        "--found", action="store_true", help="they are in the cluster already, and a patch brings them in"
    )
    parser.add_argument(
        "--pause", type=float, default=0.0, help="seconds between a member's first call and the next wish"
    )
    parser.add_argument("--each", action="store_true", help="also tell of each namespace, on standard error")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="herdsman-bench-") as directory:
        before = os.getloadavg()
        took = asyncio.run(measure(Path(directory), wanted.count, wanted.pause, found=wanted.found, each=wanted.each))
    after = os.getloadavg()
    sys.stdout.write(f"{'what':<52}{'measured':>16}{'budget':>12}\n")
    for what, measured, budget in rows(took):
        sys.stdout.write(f"{what:<52}{measured:>16}{budget:>12}\n")
    load = f"{before[0]:.1f} before, {after[0]:.1f} after"
    sys.stdout.write(f"{'load average of the last minute':<40}{load:>28}\n")
    return 0


async def measure(directory: Path, count: int, pause_s: float, *, found: bool, each: bool) -> list[Took]:
    async with (
        stage(directory) as made,
        aiohttp.ClientSession(connector=_connector(made.hub)) as asking,
        aiohttp.ClientSession(connector=_connector(made.hub)) as polling,
    ):
        took = []
        for number in range(count):
            name = f"growing-{number}"
            took.append(await _one(made, asking, polling, name, found=found))
            if each:
                steps = " ".join(f"{1e3 * step:6.0f}" for step in took[-1].steps)
                sys.stderr.write(
                    f"{number:>4} {1e3 * took[-1].total:6.0f} ms = {steps}, answer {1e3 * took[-1].answer:.0f}\n"
                )
            await asyncio.sleep(pause_s)
        return took


def rows(took: Sequence[Took]) -> Iterator[tuple[str, str, str]]:
    """What is printed: the whole, where parts are cut, and where the time went."""
    yield from _quantile_rows(f"until the member's first 200, {len(took)} namespaces", [t.total for t in took])
    for border in BORDERS:
        near = [t.total for t in took[max(0, border - AROUND) : border + AROUND]]
        if len(took) >= border + AROUND:
            yield f"of the {2 * AROUND} around {border}, worst", f"{max(near):.2f} s", BUDGETS["p99"]
    whole = sum(t.total for t in took)
    for place, step in enumerate(STEPS):
        values = sorted(t.steps[place] for t in took)
        share = f"{100 * sum(values) / whole:.0f} %, p50 {1e3 * statistics.median(values):.0f} ms"
        yield f"of that: {step}", share, ""
        yield f"of that: {step}, p99", f"{_quantile(values, 0.99):.2f} s", ""
    answers = [t.answer for t in took]
    yield from _quantile_rows("until the hub's answer", answers, budgets=False)


def _quantile_rows(what: str, values: Sequence[float], *, budgets: bool = True) -> Iterator[tuple[str, str, str]]:
    for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        yield f"{what}, {name}", f"{_quantile(values, part):.2f} s", BUDGETS.get(name, "") if budgets else ""


def _quantile(values: Sequence[float], part: float) -> float:
    """The least value that so great a part of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(1000 * part) // 1000) - 1)]


async def _one(
    made: Stage, asking: aiohttp.ClientSession, polling: aiohttp.ClientSession, name: str, *, found: bool
) -> Took:
    """One more namespace, and how long what took."""
    entries: list[dict[str, Any]] = []
    if found:
        await made.direct.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        entries = await _entries(made, asking)
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        wish = tasks.create_task(_ask(made, asking, name, entries, found=found), name="wish")
        call = tasks.create_task(_first_call(made, polling, name), name="first call")
    worked, answered = call.result(), wish.result()
    marks = (made.marks.written, made.marks.touched, made.marks.bound)
    # A watch may tell later than the member's own call.
    async with asyncio.timeout(PATIENCE_S):
        while missing := [step for step, seen in zip(STEPS, marks, strict=False) if name not in seen]:
            assert not (ended := [t for t in made.watching if t.done()]), f"{missing} was not seen: {ended}"
            await asyncio.sleep(EVERY_S)
    moments = [began]
    for seen in marks:
        moments.append(min(worked, max(moments[-1], seen[name])))
    moments.append(worked)
    steps = tuple(after - before for before, after in pairwise(moments))
    return Took(worked - began, answered - began, steps)


async def _entries(made: Stage, asking: aiohttp.ClientSession) -> list[dict[str, Any]]:
    url, token = made.hub_access
    async with asking.get(f"{url}{API}/projects/{TEAM}", headers=_bearer(token)) as answer:
        document = await answer.json()
        assert answer.status == 200, document
        return list(document["spec"].get("namespaces") or ())


async def _ask(
    made: Stage, asking: aiohttp.ClientSession, name: str, entries: list[dict[str, Any]], *, found: bool
) -> float:
    """When the hub had answered."""
    url, token = made.hub_access
    if found:
        body = {"spec": {"namespaces": [*entries, {"cluster": CLUSTER, "namespace": name}]}}
        headers = {**_bearer(token), "Content-Type": "application/merge-patch+json"}
        sent = asking.patch(f"{url}{API}/projects/{TEAM}", data=json.dumps(body), headers=headers)
    else:
        wish = {"cluster": CLUSTER, "namespace": name}
        sent = asking.post(f"{url}/v1/projects/{TEAM}/namespaces", json=wish, headers=_bearer(token))
    async with sent as answer:
        text = await answer.text()
        assert answer.status in (200, 201, 202), f"{answer.status}: {text}"
    return time.monotonic()


async def _first_call(made: Stage, polling: aiohttp.ClientSession, name: str) -> float:
    """When the member's call was answered with 200."""
    url, token = made.member_access
    deadline = time.monotonic() + PATIENCE_S
    while True:
        async with polling.get(f"{url}{NAMESPACES}/{name}/pods", headers=_bearer(token)) as answer:
            text = await answer.text()
        if answer.status == 200:
            return time.monotonic()
        assert answer.status == 403, f"{answer.status}: {text}"
        assert time.monotonic() < deadline, f"{name}: nothing in {PATIENCE_S:g} s; last: {text}"
        await asyncio.sleep(EVERY_S)


@asynccontextmanager
async def stage(directory: Path) -> AsyncIterator[Stage]:
    """The hub, a cluster with its agent, the project and its member; and what watches them."""
    async with AsyncExitStack() as stack:
        cluster = await Cluster.up(CLUSTER, directory / "clusters")
        stack.push_async_callback(cluster.down, delete=True)
        hub = await stack.enter_async_context(Hub(directory / "hub", "--no-local-cluster"))
        agent = Agent(hub, directory / "agent", cluster.kubeconfig)
        await stack.enter_async_context(running(agent, await make_cluster(hub, CLUSTER)))
        admin, jane = await hub.admin(), await hub.person(MEMBER)
        await eventually(lambda: _is_active(admin), 120)
        project = {
            "apiVersion": "management.herdsman.dev/v1",
            "kind": "Project",
            "metadata": {"name": TEAM},
            "spec": {},
        }
        await admin.sees("herdsman", "apply", "-f", "-", stdin=json.dumps(project).encode())
        await admin.must("grant", "--user", MEMBER, "--role", ROLE, "--project", TEAM)
        # Only for a kubeconfig with a context of the cluster: the member is to have nothing but the project.
        await admin.must("grant", "--user", MEMBER, "--role", "cluster-viewer", "--cluster", CLUSTER, "--for", "10m")
        for person in (admin, jane):
            await person.fetch_kubeconfig()
        await admin.must("revoke", "--user", MEMBER, "--role", "cluster-viewer", "--cluster", CLUSTER)
        direct = await stack.enter_async_context(KubeClient(load_kubeconfig([cluster.kubeconfig]), user_agent="bench"))
        made = Stage(hub, access_of(admin, "herdsman"), access_of(jane, CLUSTER), direct, Marks())
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=_connector(hub)))
        made.watching += [
            asyncio.create_task(_watch_hub(made, session), name="watch hub"),
            asyncio.create_task(_watch_namespaces(direct, made.marks), name="watch namespaces"),
            asyncio.create_task(_watch_bindings(direct, made.marks), name="watch bindings"),
        ]
        try:
            yield made
        finally:
            for task in made.watching:
                task.cancel()
            await asyncio.gather(*made.watching, return_exceptions=True)


async def _is_active(admin: Person) -> bool:
    state = 'jsonpath={.status.phase}/{.status.conditions[?(@.type=="Applied")].status}'
    return (await admin.kubectl("herdsman", "get", "cluster", CLUSTER, "-o", state)).out == "Active/True"


def access_of(person: Person, context: str) -> tuple[str, str]:
    """Address and token of a context in the person's kubeconfig."""
    config = yaml.safe_load(person.kubeconfig.read_text())
    entry = next(c["context"] for c in config["contexts"] if c["name"] == context)
    server = next(c["cluster"]["server"] for c in config["clusters"] if c["name"] == entry["cluster"])
    return server, next(u["user"]["token"] for u in config["users"] if u["name"] == entry["user"])


async def _watch_hub(made: Stage, session: aiohttp.ClientSession) -> None:
    url, token = made.hub_access
    asked = {"watch": "true", "fieldSelector": f"metadata.name={TEAM}"}
    unbounded = aiohttp.ClientTimeout(total=None)
    while True:  # the hub ends a watch when its caller's rights may have changed
        async with session.get(f"{url}{API}/projects", params=asked, headers=_bearer(token), timeout=unbounded) as got:
            assert got.status == 200, await got.text()
            buffer = bytearray()
            async for chunk in got.content.iter_any():
                buffer += chunk
                now = time.monotonic()
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    for entry in json.loads(line)["object"].get("spec", {}).get("namespaces") or ():
                        made.marks.written.setdefault(entry["namespace"], now)


async def _watch_namespaces(client: KubeClient, marks: Marks) -> None:
    await _watch(
        client,
        NAMESPACES,
        "",
        lambda found: str(found["metadata"]["name"]) if PROJECT in labels_of(found) else "",
        marks.touched,
    )


async def _watch_bindings(client: KubeClient, marks: Marks) -> None:
    def read(found: dict[str, Any]) -> str:
        metadata = found["metadata"]
        return str(metadata["namespace"]) if metadata["name"].endswith(f":{ROLE}") else ""

    await _watch(client, BINDINGS, SELECTOR, read, marks.bound)


async def _watch(
    client: KubeClient, path: str, selector: str, read: Callable[[dict[str, Any]], str], into: dict[str, float]
) -> None:
    """Note when `read` first told the name of each namespace."""
    async for seen in Reflector(client, path, selector=selector, metadata_only=True).run():
        now = time.monotonic()
        for item in seen.items if isinstance(seen, Listed) else [seen.object] if isinstance(seen, Changed) else ():
            if name := read(item):
                into.setdefault(name, now)


def _connector(hub: Hub) -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(ssl=hub.tls())


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


if __name__ == "__main__":
    sys.exit(main())
