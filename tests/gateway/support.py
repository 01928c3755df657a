"""A gateway in this process, on memory stores and bus, with real writers, real informers and real grants behind it.

What it does not imitate: the owners' own strategies (only what the API machinery needs), and the front door, which here is an
envelope that the test seals itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from pydantic import BaseModel

from libs.common import errors
from libs.common.access.live import SOURCES, LiveGrants
from libs.common.access.principal import Principal
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.apiserver.watch import WatchCache
from libs.common.apiserver.writer import ResourceWriter
from libs.common.bus import wire
from libs.common.bus.base import Message
from libs.common.bus.memory import MemoryBus
from libs.common.contracts import messages as m
from libs.common.contracts import methods
from libs.common.contracts.methods import WRITE, Method
from libs.common.crypto.envelope import HEADER
from libs.common.resources import codec
from libs.common.resources.meta import Resource
from libs.common.resources.registry import BUCKETS, BY_MODEL, BY_PLURAL, RESOURCE_TYPES
from libs.common.store.informer import Informer
from libs.common.store.memory import MemoryStore
from services.gateway.app import build_app, make_runner
from services.gateway.config import GatewayConfig
from services.gateway.state import State
from services.gateway.token_feed import TokenFeed
from services.gateway.token_reader import TokenReader
from tests.apiserver.support import ADMIN_ROLE, OWNER_ROLE, Keys, make_binding, make_cluster, make_principal, make_user

OURS = "/apis/management.herdsman.dev/v1"


class UserStrategy(Strategy[Any]):
    model = BY_PLURAL["users"].model
    name_is_label = True

    async def prepare(self, ctx: WriteContext, old: Any, new: Any) -> Any:
        if old is None:
            new.status.principal_id = f"local:user:{new.uid}"
        return new


def make_strategies(owner: str) -> dict[str, Strategy[Any]]:
    found: dict[str, Strategy[Any]] = {}
    for rtype in RESOURCE_TYPES:
        if rtype.owner == owner:
            strategy: Strategy[Any] = UserStrategy() if rtype.plural == "users" else Strategy()
            strategy.model = rtype.model
            found[rtype.plural] = strategy
    return found


class Hub:
    """Use `running()`. `call` speaks HTTP to the gateway as somebody; `put` writes an object past the API, as an owner would."""

    def __init__(
        self, now: Callable[[], datetime], folder: Path, monotonic: Callable[[], float], **config: Any
    ) -> None:
        self.now, self.keys, self.bus = now, Keys(now), MemoryBus()
        self.stores = {bucket: MemoryStore(bucket) for bucket in BUCKETS}
        self.informers = {t.plural: Informer(self.stores[t.bucket], t.plural, name=t.plural) for t in RESOURCE_TYPES}
        self.feed = self.informers["tokens"] = TokenFeed(self.stores["identity"])
        self.caches = {plural: WatchCache(informer) for plural, informer in self.informers.items()}
        self.feed.gaps.append(self.caches["tokens"].cut)
        self.grants = LiveGrants({p: self.informers[p] for p in SOURCES}, now)
        self.socket = folder / "gateway.sock"
        settings = {
            "nats_url": ["nats://unused"], "identity_public_key": folder / "unused.pem", "socket": self.socket,
            "public_url": "https://hub.example:8443", **config,
        }  # fmt: skip
        self.waiting: list[str] = []
        self.state = State(
            config=GatewayConfig.model_validate(settings), bus=self.bus, verifier=self.keys.verifier, grants=self.grants,
            caches=self.caches, feed=self.feed, tokens=TokenReader(self.stores["identity"], self.grants), nodes=self.stores["node_registry"], now=now, monotonic=monotonic, waiting_for=lambda: self.waiting, ca="-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
        )  # fmt: skip
        self.stack = AsyncExitStack()
        self.session: aiohttp.ClientSession
        self.asked: list[BaseModel] = []

    async def put(self, resource: Resource) -> int:
        """Create the object, or write over it."""
        rtype = BY_MODEL[type(resource)]
        store, key = self.stores[rtype.bucket], rtype.key(resource.name)
        try:
            entry = await store.get(key)
        except errors.NotFound:
            revision = await store.create(key, codec.encode(resource))
        else:
            revision = await store.update(key, codec.encode(resource), entry.revision)
        await self.informers[rtype.plural].wait_revision(revision)
        return revision

    async def remove(self, plural: str, name: str) -> int:
        rtype = BY_PLURAL[plural]
        store = self.stores[rtype.bucket]
        entry = await store.get(rtype.key(name))
        revision = await store.delete(entry.key, entry.value, entry.revision)
        await self.informers[plural].wait_revision(revision)
        return revision

    async def serve(self, method: Method[Any, Any], handler: Callable[[Any], Any]) -> None:
        async def answer(message: Message) -> BaseModel:
            request = wire.parse(method.request, message.data)
            self.asked.append(request)
            result = handler(request)
            return await result if asyncio.iscoroutine(result) else result

        await self.stack.enter_async_context(self.bus.serve(method.subject, answer, queue=method.service))

    def headers(self, by: str | Principal | None, more: Mapping[str, str] | None = None) -> dict[str, str]:
        sealed = (
            {} if by is None else {HEADER: self.keys.signer.seal(make_principal(by) if isinstance(by, str) else by)}
        )
        return {**sealed, **(more or {})}

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        by: str | Principal | None = "root",
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Any:
        return self.session.request(
            method,
            f"http://hub{path}",
            json=body if data is None else None,
            data=data,
            headers=self.headers(by, headers),
        )

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """Status and document."""
        async with self.request(method, path, body, **more) as response:
            return response.status, await response.json(content_type=None)

    async def seed(self) -> None:
        """Two clusters, three people: root may everything, ann owns c1, bob nothing."""
        for resource in (
            make_user("root"), make_user("ann"), make_user("bob"), make_cluster("c1"), make_cluster("c2"), ADMIN_ROLE, OWNER_ROLE,
            make_binding("root", "admin", {"global": True}), make_binding("ann", "cluster-owner", {"cluster": "c1"}),
        ):  # fmt: skip
            await self.put(resource)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Hub]:
        tasks = [asyncio.create_task(i.run(), name=f"informer {p}") for p, i in self.informers.items()]
        tasks.append(asyncio.create_task(self.grants.run(), name="grants"))
        self.grants.subscribe(lambda _grants: self.state.wake_streams())
        self.feed.ended.append(self.state.wake_streams)
        for owner, method in WRITE.items():
            writer = ResourceWriter(
                self.stores[owner], make_strategies(owner), self.keys.verifier, self.grants, self.now
            )
            await self.serve(method, writer.handle)
        for service in methods.OWNERS:
            health = m.Health(service=service, version="1", ready=True)
            await self.serve(methods.PING[service], lambda _request, health=health: health)
        for informer in self.informers.values():
            await informer.synced.wait()
        await self.seed()
        runner = make_runner(build_app(self.state))
        await runner.setup()
        await web.UnixSite(runner, str(self.socket)).start()
        self.session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket)))
        try:
            yield self
        finally:
            await self.session.close()
            await runner.cleanup()
            await self.stack.aclose()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def real_monotonic() -> float:
    return time.monotonic()
