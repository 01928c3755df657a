"""A hub in memory for tests of owners: real stores' double, informers, live grants, envelopes and the real ResourceWriter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.common.access.live import LiveGrants
from libs.common.apiserver.writer import ResourceWriter
from libs.common.contracts.messages import ResourceWrite, ResourceWriteReply, WriteOptions
from libs.common.crypto.envelope import Signer, Verifier
from libs.common.resources import codec
from libs.common.resources.identity import User
from libs.common.resources.meta import Resource
from libs.common.resources.registry import BY_MODEL, RESOURCE_TYPES
from libs.common.store.informer import Informer
from libs.common.store.memory import MemoryStore
from libs.common.store.objects import Objects
from tests.access import made

R = TypeVar("R", bound=Resource)


class Hub:
    """All buckets. `put` and `delete` go straight to the store; `write` goes through a writer as a person would."""

    def __init__(self, clock) -> None:
        self.now = clock
        self.stores = {t.bucket: MemoryStore(t.bucket) for t in RESOURCE_TYPES}
        self.informers = {t.plural: Informer(self.stores[t.bucket], t.plural) for t in RESOURCE_TYPES}
        self.live = LiveGrants(self.informers_of_grants(), clock)
        key = Ed25519PrivateKey.generate()
        self.signer, self.verifier = Signer(key, clock), Verifier(key.public_key(), clock)

    def informers_of_grants(self) -> dict[str, Informer]:
        return {
            p: self.informers[p]
            for p in ("roletemplates", "roletemplatebindings", "clusters", "users", "projects", "groups")
        }

    def objects(self, model: type[R]) -> Objects[R]:
        return Objects(self.informers[BY_MODEL[model].plural], model)

    def writer(self, bucket: str, strategies: dict[str, Any]) -> ResourceWriter:
        return ResourceWriter(self.stores[bucket], strategies, self.verifier, self.live, self.now)

    def envelope(self, who: User, **more: Any) -> str:
        return self.signer.seal(made.caller(who, **more))

    async def put(self, *resources: Resource) -> None:
        for resource in resources:
            kind = BY_MODEL[type(resource)]
            store, key = self.stores[kind.bucket], kind.key(resource.name)
            entry = self.informers[kind.plural].get(key)
            value = codec.encode(resource)
            revision = await (store.update(key, value, entry.revision) if entry else store.create(key, value))
            await self.informers[kind.plural].wait_revision(revision)

    async def delete(self, resource: Resource) -> None:
        kind = BY_MODEL[type(resource)]
        entry = await self.stores[kind.bucket].get(kind.key(resource.name))
        revision = await self.stores[kind.bucket].delete(entry.key, entry.value, entry.revision)
        await self.informers[kind.plural].wait_revision(revision)

    async def get(self, model: type[R], name: str) -> R:
        kind = BY_MODEL[model]
        entry = await self.stores[kind.bucket].get(kind.key(name))
        return codec.decode(model, entry.value, entry.revision)

    async def settle(self) -> None:
        """Wait until every informer has every write."""
        for kind in RESOURCE_TYPES:
            informer, store = self.informers[kind.plural], self.stores[kind.bucket]
            for entry in list(store._last.values()):
                if entry.key.startswith(f"{kind.plural}."):
                    await informer.wait_revision(entry.revision)

    async def write(
        self, writer: ResourceWriter, who: User, verb: str, resource: Resource | str, *, plural: str = "", body: Any = None,
        **options: Any,
    ) -> ResourceWriteReply:  # fmt: skip
        """`resource` is the object to create or update, or the name to patch (merge, `body`) or delete (with `plural`)."""
        if isinstance(resource, Resource):
            plural, name, body = BY_MODEL[type(resource)].plural, resource.name, resource.to_document()
        else:
            name = resource
        request = ResourceWrite(
            identity=self.envelope(who), verb=verb, plural=plural, name=name, body=body,
            patch_type="merge" if verb == "patch" else None,
            subresource=options.pop("subresource", ""), options=WriteOptions(**options),
        )  # fmt: skip
        reply = await writer.handle(request)
        await self.settle()
        return reply


async def end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel until they are done: before Python 3.12 `asyncio.wait_for`, on which watches wait, can swallow a cancellation."""
    while not all(task.done() for task in tasks):
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)


@asynccontextmanager
async def running_hub(clock) -> AsyncIterator[Hub]:
    hub = Hub(clock)
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(i.run(), name=f"informer {n}") for n, i in hub.informers.items()]
        try:
            for informer in hub.informers.values():
                await informer.synced.wait()
            yield hub
        finally:
            hub.live.close()
            await end(started)


ADMIN = made.role("admin", "global", hub=[{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}])
