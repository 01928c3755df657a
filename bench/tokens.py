"""`python -m bench.tokens`: what stored tokens cost a real hub: start, memory of its processes, and finding out whose a token is.

The hub is started with none and with `--tokens` of them in its store; everything is side by side. `ready, alone`: identity or the gateway by
itself on a running bus, from its start to 200 on /readyz; nats-server's own start, which reads its files, is in `hub ready` only. `adopted`:
until every token, loaded as an older version writes it, is in its user's record, and the most memory that took. `hot`: a token that was used lately, found and
compared (CPU of one call, the best of some rounds). `cold`: the one read of a token that was not, over the bus. `revoked`: from before the delete until
the token is forgotten. Tokens are loaded into the stream as a restore does, not one durable write after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Awaitable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench.processes import Hub, resident_mb
from bench.state import _options
from libs.common.access.grants import Grants, compile_grants
from libs.common.access.principal import Principal
from libs.common.access.token_record import read_progress
from libs.common.access.token_text import TokenText, make_token_text
from libs.common.apiserver.selectors import Selectors
from libs.common.bus.jetstream_api import JetStreamApi
from libs.common.bus.nats import NatsBus, NatsOptions, connect
from libs.common.observe import log
from libs.common.resources import codec
from libs.common.resources.access import PolicyRule, RoleTemplate, RoleTemplateBinding
from libs.common.resources.federation import FederatedCredential
from libs.common.resources.identity import Group, Token, TokenPrivate, TokenSpec, User
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.providers import IdentityProvider
from libs.common.store.informer import Informer
from libs.common.store.jetstream import JetStreamStore
from libs.common.store.objects import Objects
from services.auth_proxy.authenticate import Authenticator
from services.auth_proxy.token_cache import TokenCache
from services.gateway.token_reader import TokenReader
from services.identity.tokens import Lifetimes, Tokens

SETTLE_S = 5.0
COLD = 500
REVOKED = 50
LISTS = 20
ISSUED = 50
PER_FLUSH = 2_000
PROCESSES = ("auth_proxy", "identity", "gateway")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=250_000, help="how many are stored in the second round")
    parser.add_argument("--users", type=int, default=1_000, help="people that they belong to, in both rounds")
    wanted = parser.parse_args()
    log.configure("bench", "error")
    directory = Path(tempfile.mkdtemp(prefix="herdsman-bench-"))
    hub = Hub(directory, "--no-local-cluster")
    try:
        hub.start()
        asyncio.run(load_users(directory, wanted.users))
        hub.stop()
        with bus_alone(directory):
            alone = measure_alone(directory)
        none = measure_hub(hub)
        none.update({**alone, "identity, adopted": "", "identity, most, adopting": ""})
        none.update(asyncio.run(measure_parts(directory)))
        hub.stop()
        began = time.monotonic()
        with bus_alone(directory):
            last = asyncio.run(load(directory, wanted.tokens, wanted.users))
            sys.stderr.write(f"{wanted.tokens} tokens loaded in {time.monotonic() - began:.0f} s\n")
            adopted = measure_adoption(directory, last)
            alone = measure_alone(directory)
        many = measure_hub(hub)
        many.update({**alone, **adopted})
        many.update(asyncio.run(measure_parts(directory)))
    finally:
        hub.stop()
        shutil.rmtree(directory, ignore_errors=True)
    budgets = {"find, hot, p50": "≤ 20 µs", "find, cold, p50": "≤ 2 ms"}
    sys.stdout.write(f"{'what':<28}{'no tokens':>14}{wanted.tokens:>14}{'budget':>12}\n")
    for what, measured in none.items():
        sys.stdout.write(f"{what:<28}{measured:>14}{many[what]:>14}{budgets.get(what, ''):>12}\n")
    return 0


def measure_hub(hub: Hub) -> dict[str, str]:
    """A start of the whole hub, then the memory of those that deal with tokens. Leaves it running."""
    figures = {"hub ready": f"{hub.start(timeout_s=300):.1f} s"}
    time.sleep(SETTLE_S)
    pids = hub.pids()
    for name in pids:
        if name.startswith(PROCESSES):
            figures[f"{name}, resident"] = f"{_resident_mb(pids[name]):.0f} MB"
    return figures


def measure_alone(directory: Path) -> dict[str, str]:
    """Time to ready and memory of those that had a copy of all tokens once, each by itself beside the bus."""
    figures = {}
    for name in ("identity", "gateway"):
        with service_alone(directory, name) as (process, seconds):
            time.sleep(SETTLE_S)
            figures[f"{name}, ready, alone"] = f"{seconds:.1f} s"
            figures[f"{name}, resident, alone"] = f"{resident_mb(process.pid):.0f} MB"
            figures[f"{name}, most, alone"] = f"{_most_mb(process.pid):.0f} MB"
    return figures


def measure_adoption(directory: Path, last: int) -> dict[str, str]:
    """The first start of identity after all those tokens came."""
    began = time.monotonic()
    with service_alone(directory, "identity") as (process, _seconds):
        asyncio.run(_wait_adopted(directory, last))
        return {
            "identity, adopted": f"{time.monotonic() - began:.1f} s",
            "identity, most, adopting": f"{_most_mb(process.pid):.0f} MB",
        }


def _most_mb(pid: int) -> float:
    """The most that was ever resident; identity's own start takes 64 MB for a moment, to hash a password that nobody has."""
    most = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    return int(most[1]) / 1024 if most is not None else 0.0


async def _wait_adopted(directory: Path, last: int) -> None:
    async with connect(_administration(directory)) as bus, asyncio.timeout(600):
        store = JetStreamStore(bus, "identity")
        while (progress := await read_progress(store)) is None or progress.revision < last:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.1)


@contextmanager
def service_alone(directory: Path, name: str) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """One service of the hub on the bus, ready, and how many seconds that took."""
    config = directory / "data" / "config" / f"{name}.json"
    health = Path(json.loads(config.read_text(encoding="utf-8"))["health_file"])
    health.unlink(missing_ok=True)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", f"services.{name}", "--config", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_ready(health):
            if process.poll() is not None or time.monotonic() - began > 300:
                raise RuntimeError(f"{name} did not become ready")
            time.sleep(0.01)
        yield process, time.monotonic() - began
    finally:
        process.terminate()
        process.wait(timeout=30)


def _is_ready(health: Path) -> bool:
    try:
        address = health.read_text(encoding="ascii").strip().removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=2)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _resident_mb(pid: int) -> float:
    """With its children: the front door's parent holds nothing, its workers do."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return resident_mb(pid) + sum(_resident_mb(int(child)) for child in children)


@contextmanager
def bus_alone(directory: Path) -> Iterator[None]:
    """The hub's bus without its services: nobody works on what is loaded while it is."""
    program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "nats-server"
    server = subprocess.Popen(
        [program, "-c", str(directory / "data" / "nats" / "nats.conf")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        server.terminate()
        server.wait(timeout=60)


async def load_users(directory: Path, users: int) -> None:
    async with connect(_administration(directory)) as bus:
        store = JetStreamStore(bus, "identity")
        for number in range(users):
            name = f"u{number}"
            meta = ObjectMeta(name=name, uid=f"uid-of-{name}", creation_timestamp=datetime.now(UTC), generation=1)
            await store.create(f"users.{name}", codec.encode(User(metadata=meta)))


async def load(directory: Path, tokens: int, users: int) -> int:
    """Straight into the stream, many under way; the stream's own count says that all came. Returns the last revision."""
    expires = datetime.now(UTC) + timedelta(days=30)
    async with connect(_administration(directory)) as bus:
        api = JetStreamApi(bus.connection)
        before = int((await api.call("STREAM.INFO.KV_identity"))["state"]["last_seq"])
        for number in range(tokens):
            text = make_token_text()
            await bus.connection.publish(
                f"$KV.identity.tokens.{text.name}", _token(text, f"u{number % users}", expires)
            )
            if number % PER_FLUSH == PER_FLUSH - 1:
                await _caught_up(api, before + number + 1)
        await _caught_up(api, before + tokens)
        return before + tokens


async def _caught_up(api: JetStreamApi, sequence: int) -> None:
    async with asyncio.timeout(60):
        while int((await api.call("STREAM.INFO.KV_identity"))["state"]["last_seq"]) < sequence:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.005)


def _token(text: TokenText, user: str, expires: datetime) -> bytes:
    spec = TokenSpec(user=user, user_uid=f"uid-of-{user}", purpose="kubeconfig", expires_at=expires)
    meta = ObjectMeta(name=text.name, uid=str(uuid4()), creation_timestamp=datetime.now(UTC), generation=1)
    return codec.encode(Token(metadata=meta, spec=spec, private=TokenPrivate(secret_hash=text.secret_hash)))


async def measure_parts(directory: Path) -> dict[str, str]:
    """What is asked of the parts of a hub that runs, by one caller at a time."""
    return {**await measure_front_door(directory), **await measure_records(directory)}


async def measure_records(directory: Path) -> dict[str, str]:
    """Identity's and the gateway's own parts in this process, with the administration's credential."""
    async with connect(_administration(directory)) as bus:
        store = JetStreamStore(bus, "identity")
        users = Informer(store, "users", name="bench-users")
        following = asyncio.create_task(users.run())
        await users.synced.wait()
        people = Objects(users, User).all()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        owner, admin = (next(user for user in people if user.name == name) for name in ("u1", "u2"))
        reader = TokenReader(store, Fixed(_everything_for(admin, people)))
        own = [await _timed(_walk(reader, owner, 10_000)) for _ in range(LISTS)]
        pages = [await _timed(_walk(reader, admin, 500)) for _ in range(LISTS)]
        tokens = Tokens(store, lambda: datetime.now(UTC), Lifetimes(), per_user=100_000)
        issued = [await _timed(tokens.issue(owner, "api", ttl_s=600)) for _ in range(ISSUED)]
        revoked = await _timed(tokens.revoke_all(owner.uid))
        return {
            "issue, p50": f"{statistics.median(issued) * 1e3:.1f} ms",
            "list one's own, p50": f"{statistics.median(own) * 1e3:.1f} ms",
            "list a page of 500, p50": f"{statistics.median(pages) * 1e3:.1f} ms",
            "revoke all of one user": f"{revoked * 1e3:.0f} ms",
        }


@dataclass(frozen=True)
class Fixed:
    """Grants that stay as they are."""

    current: Grants


def _everything_for(user: User, people: list[User]) -> Grants:
    rule = PolicyRule(verbs=["*"], api_groups=["*"], resources=["*"])
    spec = {"scope": "global", "hubRules": [rule.to_document()]}
    role = RoleTemplate.model_validate({"metadata": {"name": "everything"}, "spec": spec})
    bound = {"principal": f"local:user:{user.uid}", "role": "everything", "scope": {"global": True}}
    binding = RoleTemplateBinding.model_validate({"metadata": {"name": "all"}, "spec": bound})
    return compile_grants([role], [binding], [], people, datetime.now(UTC))


async def _walk(reader: TokenReader, user: User, most: int) -> None:
    caller = Principal(user=user.name, user_uid=user.uid, principal_id=f"local:user:{user.uid}")
    async with aclosing(reader.walk(caller, "list", Selectors())) as found:
        async for _ in found:
            most -= 1
            if not most:
                return


async def _timed(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def measure_front_door(directory: Path) -> dict[str, str]:
    """The front door's own parts in this process, over the hub's bus, with its credential for reading and the administration's for writing."""
    async with (
        connect(_options(directory / "data" / "config", "auth_proxy")) as bus,
        connect(_administration(directory)) as writing,
    ):
        store = JetStreamStore(bus, "identity")
        users, groups, providers, credentials = (
            Informer(store, "users", name="bench-users"),
            Informer(store, "groups", name="bench-groups"),
            Informer(store, "identityproviders", name="bench-providers"),
            Informer(store, "federatedcredentials", name="bench-credentials"),
        )
        cache = TokenCache(store)
        informers = (users, groups, providers, credentials)
        tasks = [asyncio.create_task(work) for work in (*(i.run() for i in informers), cache.run())]
        try:
            async with asyncio.timeout(30):
                for event in (*(i.synced for i in informers), cache.live):
                    await event.wait()
            authenticator = Authenticator(
                cache, Objects(users, User), Objects(providers, IdentityProvider), Objects(credentials, FederatedCredential),
                Objects(groups, Group), lambda: datetime.now(UTC),
            )  # fmt: skip
            owner = next(iter(Objects(users, User).all()))
            return await _measure(authenticator, cache, writing, owner)
        finally:
            await cache.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _measure(authenticator: Authenticator, cache: TokenCache, writing: NatsBus, owner: User) -> dict[str, str]:
    admin = JetStreamStore(writing, "identity")
    texts = [make_token_text() for _ in range(COLD)]
    expires = datetime.now(UTC) + timedelta(hours=1)
    for text in texts:
        token = codec.decode(Token, _token(text, owner.name, expires), 0)
        token.spec.user_uid = owner.uid
        last = await admin.create(f"tokens.{text.name}", codec.encode(token))
    async with asyncio.timeout(10):
        while cache.revision < last:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    cold = []
    for text in texts:
        began = time.perf_counter()
        assert await authenticator.find(text.name) is not None
        cold.append(time.perf_counter() - began)
    credential = texts[0].reveal().encode()
    number = 2_000
    hot = (
        statistics.median(
            timeit.repeat(lambda: authenticator.check(credential), timer=time.thread_time, number=number, repeat=15)
        )
        / number
    )
    revoked = [await _revoke(admin, cache, text) for text in texts[:REVOKED]]
    for text in texts[REVOKED:]:
        await _delete(admin, text)
    return {
        "find, hot, p50": f"{hot * 1e6:.1f} µs",
        "find, cold, p50": f"{statistics.median(cold) * 1e3:.2f} ms",
        "find, cold, p99": f"{statistics.quantiles(cold, n=100)[98] * 1e3:.2f} ms",
        "revoked, p50": f"{statistics.median(revoked) * 1e3:.1f} ms",
        "revoked, worst": f"{max(revoked) * 1e3:.1f} ms",
    }


async def _revoke(admin: JetStreamStore, cache: TokenCache, text: TokenText) -> float:
    forgotten = asyncio.Event()

    def told(name: str) -> None:
        if name == text.name:
            forgotten.set()

    cache.on_forget.append(told)
    try:
        began = time.perf_counter()
        await _delete(admin, text)
        async with asyncio.timeout(10):
            await forgotten.wait()
        return time.perf_counter() - began
    finally:
        cache.on_forget.remove(told)


async def _delete(admin: JetStreamStore, text: TokenText) -> None:
    entry: Any = await admin.get(f"tokens.{text.name}")
    await admin.delete(entry.key, entry.value, entry.revision)


def _administration(directory: Path) -> NatsOptions:
    of_service = _options(directory / "data" / "config", "auth_proxy")
    file = next((directory / "data").rglob("administration.creds"))
    return NatsOptions(servers=of_service.servers, creds_file=file, name="bench-administration")


if __name__ == "__main__":
    sys.exit(main())
