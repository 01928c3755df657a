"""One process of `bench.grants`: follows the grants as a service does, and measures, or says when it saw what. `python -m bench.grants_follower ORDER`."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import statistics
import sys
import time
import timeit
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.grants_world import World, binding, caller, cluster_scope, user_id
from bench.processes import resident_mb
from libs.common.access.grants import Grants
from libs.common.access.live import SOURCES, LiveGrants
from libs.common.access.principal import Principal
from libs.common.apiserver.strategy import WriteContext
from libs.common.bus.nats import NatsBus, NatsOptions, connect
from libs.common.observe import log
from libs.common.resources import codec
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding
from libs.common.resources.registry import BY_PLURAL
from libs.common.runtime import collector
from libs.common.store.informer import Change, Informer
from libs.common.store.jetstream import JetStreamStore
from libs.common.store.objects import Objects
from services.authz.binding_strategy import BindingStrategy

BINDINGS = "roletemplatebindings"
ASKED = 20_000
COLD = 4_000
ROUND, COLD_ROUND = 2_000, 400
COMPILED = 200
PATIENCE_S = 120.0
"""A process that measures gives no sign of life meanwhile, and must not be taken for dead."""
CHECKED = 50
Question = Callable[[Grants], object]


def main() -> int:
    log.configure("bench", "error")
    order = json.loads(sys.argv[1])
    work = measure if order["work"] == "measure" else follow
    asyncio.run(work(order))
    return 0


@dataclass
class Followed:
    informers: dict[str, Informer]
    live: LiveGrants
    took_s: float
    came: dict[str, float]
    """When a binding's change arrived, in CPU seconds of this thread, before the grants were told of it."""


@asynccontextmanager
async def followed(order: dict[str, Any]) -> AsyncIterator[Followed]:
    """The grants of the whole hub, complete."""
    options = NatsOptions(
        servers=(order["url"],), creds_file=Path(order["creds"]), inbox_prefix=order["inbox"], name="bench-follower",
        check_every_s=PATIENCE_S,
    )  # fmt: skip
    async with connect(options) as bus:
        informers = {
            plural: Informer(JetStreamStore(bus, BY_PLURAL[plural].bucket), plural, name=f"bench-{plural}")
            for plural in SOURCES
        }
        came: dict[str, float] = {}
        informers[BINDINGS].subscribe(lambda change: came.__setitem__(change.key, time.thread_time()), replay=False)
        live = LiveGrants(informers, lambda: datetime.now(UTC))
        began = time.monotonic()
        tasks = [asyncio.create_task(informer.run(), name=name) for name, informer in informers.items()]
        tasks.append(asyncio.create_task(live.run(), name="grants"))
        try:
            for informer in informers.values():
                await informer.synced.wait()
            assert live.current.held
            took_s = time.monotonic() - began
            came.clear()
            collector.settle()
            yield Followed(informers, live, took_s, came)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def follow(order: dict[str, Any]) -> None:
    """When each write counted here, on the machine's monotonic clock, until the binding `end` comes."""
    async with followed(order) as hub:
        seen: dict[str, float] = {}
        ended = asyncio.Event()

        def note(change: Change) -> None:
            name = change.key.partition(".")[2]
            held = hub.live.current.held.get(f"bench:user:{name}")
            away = change.after is None
            assert (held is None) == away, "the decision is not by the newest binding"
            seen[f"{name}-{'away' if away else 'given'}"] = time.monotonic()
            if name == "end":
                ended.set()

        hub.informers[BINDINGS].subscribe(note, replay=False)
        say({"ready": True})
        await ended.wait()
        say(seen)


async def measure(order: dict[str, Any]) -> None:
    """Memory, decisions, compiling, and the owner's checks."""
    world = World(**order["world"])
    empty = resident_mb(os.getpid())
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(followed(order))
        options = NatsOptions(
            servers=(order["url"],), creds_file=Path(order["administration"]), name="bench-writer", check_every_s=PATIENCE_S
        )  # fmt: skip
        writing = await stack.enter_async_context(connect(options))
        full = resident_mb(os.getpid())
        say({"resident, empty": f"{empty:.0f} MB", "resident, grants complete": f"{full:.0f} MB"})
        say({"grants complete after": f"{hub.took_s:.1f} s"})
        changer = Changer(writing, hub)
        rng = random.Random(7)
        callers = [caller(number, world) for number in range(world.users)]
        for what, ask in (("is_allowed", is_allowed), ("synthetic_groups", synthetic_groups)):
            questions = [ask(rng.choice(callers), hub.live.current, rng, world) for _ in range(ASKED)]
            timed(hub.live.current, questions)
            rounds = [questions[begin : begin + ROUND] for begin in range(0, len(questions), ROUND)]
            say(figures(f"decision, {what}, warm", [timed(hub.live.current, each) for each in rounds]))
            cold = []
            asked = [ask(each, hub.live.current, rng, world) for each in rng.sample(callers, min(COLD, len(callers)))]
            for begin in range(0, len(asked), COLD_ROUND):
                await changer.change()
                cold.append(timed(hub.live.current, asked[begin : begin + COLD_ROUND]))
            say(figures(f"decision, {what}, cold", cold))
        compiled = [await changer.change() for _ in range(COMPILED)]
        say({
            "compile of one binding, p50": f"{1e3 * statistics.median(compiled):.2f} ms",
            "compile of one binding, worst": f"{1e3 * max(compiled):.2f} ms",
        })  # fmt: skip
        say(await measure_checks(hub))
        say(yardstick())


class Changer:
    """Changes one binding of some user at a time, durably, and says how long this process took to count it."""

    def __init__(self, bus: NatsBus, hub: Followed) -> None:
        self._store = JetStreamStore(bus, "authz")
        self._hub = hub
        self._number = 0
        self._took = 0.0
        self._done = asyncio.Event()
        hub.informers[BINDINGS].subscribe(self._note, replay=False)

    def _note(self, change: Change) -> None:
        grants = self._hub.live.current
        self._took = time.thread_time() - self._hub.came[change.key]
        assert change.after is not None
        assert f"c{self._number % 10}" in grants.held[user_id(self._number)].clusters
        self._done.set()

    async def change(self) -> float:
        """Seconds of CPU from the arrival of the change to a snapshot with it."""
        self._number += 1
        self._done.clear()
        made = binding(
            f"change-{self._number}", user_id(self._number), "cluster-owner", cluster_scope(self._number % 10)
        )
        await self._store.create(f"{BINDINGS}.{made.name}", codec.encode(made))
        async with asyncio.timeout(10):
            await self._done.wait()
        return self._took


def is_allowed(who: Principal, grants: Grants, rng: random.Random, world: World) -> Question:
    """A question about an object, of a kind that the hub is asked about."""
    cluster, project = _place(who, grants, rng, world)
    kind = rng.randrange(4)
    if kind == 0:
        return lambda g: g.is_allowed(who, "get", "nodes", "n1", cluster)
    if kind == 1:
        return lambda g: g.is_allowed(who, "update", "clusters", cluster)
    if kind == 2:
        return lambda g: g.is_allowed(who, "create", "roletemplatebindings", project=project)
    return lambda g: g.is_allowed(who, "get", "clusters", cluster)


def synthetic_groups(who: Principal, grants: Grants, rng: random.Random, world: World) -> Question:
    cluster, _ = _place(who, grants, rng, world)
    uid = f"uid-{cluster}"
    return lambda g: g.synthetic_groups(who, cluster, uid)


def _place(who: Principal, grants: Grants, rng: random.Random, world: World) -> tuple[str, str]:
    held = [h for i in who.principal_ids if (h := grants.held.get(i)) is not None]
    clusters, projects = [c for h in held for c in h.clusters], [p for h in held for p in h.projects]
    theirs = rng.random() < 0.5
    cluster = rng.choice(clusters) if theirs and clusters else f"c{rng.randrange(world.clusters)}"
    return cluster, rng.choice(projects) if theirs and projects else f"p{rng.randrange(world.projects)}"


def timed(grants: Grants, questions: Sequence[Question]) -> list[float]:
    """Seconds of CPU of each, less what the clock itself takes: others use the machine, too."""
    gc.collect()
    clock = statistics.median(-(time.thread_time_ns() - time.thread_time_ns()) for _ in range(1_000))
    took = []
    for ask in questions:
        began = time.thread_time_ns()
        ask(grants)
        took.append((time.thread_time_ns() - began - clock) / 1e9)
    return took


async def measure_checks(hub: Followed) -> dict[str, str]:
    """`admit` of a binding by a giver who holds the role everywhere, and `admit_delete`, as authz does them."""
    bindings = Objects(hub.informers[BINDINGS], RoleTemplateBinding)
    strategy = BindingStrategy(Objects(hub.informers["roletemplates"], RoleTemplate), hub.live)
    giver = next(
        name for name, fact in hub.live.current.users.items() if hub.live.current.has_role(fact.principal_id, "cluster-viewer")
    )  # fmt: skip
    who = Principal(user=giver, user_uid=f"uid-{giver}", principal_id=f"local:user:uid-{giver}")
    given, taken = [], []
    for number in range(CHECKED + 1):
        ctx = WriteContext(who, hub.live.current, datetime.now(UTC), "create")
        made = binding(f"check-{number}", user_id(number), "cluster-viewer", cluster_scope(1))
        began = time.thread_time()
        await strategy.admit(ctx, None, made)
        given.append(time.thread_time() - began)
        old = bindings.get(f"b{number}")
        assert old is not None
        began = time.thread_time()
        await strategy.admit_delete(ctx, old)
        taken.append(time.thread_time() - began)
    return {
        "checks before a binding is made, p50": f"{1e3 * statistics.median(given[1:]):.2f} ms",
        "checks before one is taken away, p50": f"{1e3 * statistics.median(taken[1:]):.2f} ms",
    }


def yardstick() -> dict[str, str]:
    """What the machine takes now for what every interpreter does all the time: with it, runs of different days compare."""
    number, known = 500_000, {f"k{i}": i for i in range(100)}
    took = min(
        timeit.repeat("known.get('k5')", globals={"known": known}, timer=time.thread_time, number=number, repeat=5)
    )
    return {"one look-up in a dict, for scale": f"{1e9 * took / number:.0f} ns"}


def figures(what: str, rounds: Sequence[Sequence[float]]) -> dict[str, str]:
    """Of the round in which the neighbours took least of the machine's caches, with the range over all rounds."""
    cuts = sorted((c[49], c[98]) for c in (statistics.quantiles(took, n=100) for took in rounds))
    return {
        f"{what}, p50": f"{1e6 * cuts[0][0]:.1f} µs",
        f"{what}, p99": f"{1e6 * cuts[0][1]:.1f} µs",
        f"{what}, median round": f"{1e6 * cuts[len(cuts) // 2][0]:.1f}, {1e6 * cuts[len(cuts) // 2][1]:.1f} µs",
    }


def say(figures: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
