"""Which front-door process holds reverse connections of which cluster: what this one tells the others, and what it knows of them.

An entry lives for `TTL_S` and is written again at a third of that, and soon after a cluster came or went. Nothing on a request's way waits
for the store: `find` reads what the informer brought. While NATS is away the last knowledge stays; an entry that ended is kept as a last
resort for `LINGER_S`, because after an outage all of them end at once; whoever is gone is found out by dialling and then skipped.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import structlog

from libs.common import errors
from libs.common.store.base import Store
from libs.common.store.informer import Change, Informer
from services.auth_proxy.holders import PREFIX, Holder, decode, encode

log = structlog.get_logger(component="tunnels")
TTL_S = 15
DEBOUNCE_S = 0.05
LINGER_S = 60.0
_WITHDRAW_S = 2.0


class Registry:
    """`me` is asked at each write. Invariant: what `find` gives is never this process itself."""

    def __init__(self, store: Store, informer: Informer, worker: str, me: Callable[[], Holder]) -> None:
        self.worker = worker
        self._store = store
        self._me = me
        self._revision = 0
        self._number = 0
        self._failing = False
        self._withdrawn = False
        self._wanted = asyncio.Event()
        self._announced: frozenset[str] = frozenset()
        self._holders: dict[str, Holder] = {}
        self._of_cluster: dict[str, set[str]] = {}
        self._ended: dict[str, tuple[Holder, float]] = {}
        self._unreachable: set[str] = set()
        self._lacking: set[tuple[str, str]] = set()
        self._left: dict[str, datetime] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        informer.subscribe(self._entry_changed, replay=True)

    # what this process says

    def presence_changed(self, cluster_uid: str, connected: int) -> None:
        """The number of this process's connections of a cluster changed; only a first and a last one are news."""
        if (cluster_uid in self._announced) != (connected > 0):
            self._wanted.set()
        if connected:
            self._left.pop(cluster_uid, None)
            self._wake(cluster_uid)

    def announce(self) -> None:
        """Write the entry soon: something in it changed."""
        self._wanted.set()

    async def run(self) -> None:
        """Keep the entry alive, for ever. What can't be written now is tried again; the store's own time-outs are the pace."""
        while True:
            try:
                async with asyncio.timeout(TTL_S / 3 * random.uniform(0.8, 1.0)):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(DEBOUNCE_S)
            self._wanted.clear()
            if not self._withdrawn:
                await self.publish()

    async def publish(self) -> None:
        """Write the entry once. A failure is logged, not raised: the next is a few seconds away."""
        me = self._me()
        self._announced = frozenset(me.clusters)
        self._number += 1
        value = encode(me, self._number)
        try:
            self._revision = await self._write(me.key, value)
        except errors.HerdsmanError as exc:
            if not self._failing:
                log.warning("registry_not_written", error=exc.message)
            self._failing = True
            self._announced = frozenset()
        else:
            self._failing = False

    async def _write(self, key: str, value: bytes) -> int:
        if self._revision:
            try:
                return await self._store.update(key, value, self._revision, ttl_s=TTL_S)
            except errors.Conflict:
                # It ended while NATS was away, or an answer was lost and the write was not: what is there says.
                self._revision = 0
        try:
            return await self._store.create(key, value, ttl_s=TTL_S)
        except errors.AlreadyExists:
            # The key is this process's alone, so whatever is there was written here.
            entry = await self._store.get(key)
            return await self._store.update(key, value, entry.revision, ttl_s=TTL_S)

    async def withdraw(self) -> None:
        """Take the entry away: this process ends. Best effort, for two seconds; else it ends by itself."""
        self._withdrawn = True
        try:
            async with asyncio.timeout(_WITHDRAW_S):
                if self._revision:
                    await self._store.delete(f"{PREFIX}.{self.worker}", b"", self._revision)
        except (errors.HerdsmanError, TimeoutError) as exc:
            log.info("registry_entry_left_to_expire", error=str(exc))

    # what it knows of the others

    @property
    def holders(self) -> Mapping[str, Holder]:
        """The living ones, by worker."""
        return self._holders

    def find(self, cluster_uid: str, tried: Iterable[str] = ()) -> Holder | None:
        """A process that holds connections of the cluster: the less loaded of two, among those that stay. None: nobody is known."""
        known = [w for w in self._of_cluster.get(cluster_uid, ()) if self._is_good(w, cluster_uid) and w not in tried]
        staying = [w for w in known if not self._holders[w].draining]
        chosen = staying or known
        if chosen:
            two = chosen if len(chosen) <= 2 else random.sample(chosen, 2)
            return min((self._holders[w] for w in two), key=lambda h: (h.load, random.random()))
        return self._find_ended(cluster_uid, tried)

    def unreachable(self, holder: Holder) -> None:
        """It could not be dialled: not to be asked again before it speaks."""
        self._unreachable.add(holder.worker)
        self._ended.pop(holder.worker, None)

    def lacks(self, holder: Holder, cluster_uid: str) -> None:
        """It said that it has no connection of the cluster: the same, for this cluster."""
        self._lacking.add((holder.worker, cluster_uid))

    def left_at(self, cluster_uid: str) -> datetime | None:
        """When the last other process lost the cluster, if that was seen here."""
        return self._left.get(cluster_uid)

    async def wait_for(self, cluster_uid: str) -> None:
        """Until this process or another one has connections of the cluster. What was ready then may be taken already: look again."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(cluster_uid, [])
        waiting.append(future)
        try:
            await future
        finally:
            waiting.remove(future)
            if not waiting and self._waiting.get(cluster_uid) is waiting:
                del self._waiting[cluster_uid]

    # inside

    def _is_good(self, worker: str, cluster_uid: str) -> bool:
        return worker not in self._unreachable and (worker, cluster_uid) not in self._lacking

    def _find_ended(self, cluster_uid: str, tried: Iterable[str]) -> Holder | None:
        if self._ended:
            now = asyncio.get_running_loop().time()
            for worker in [w for w, (_, until) in self._ended.items() if until <= now]:
                del self._ended[worker]
        for worker, (holder, _) in self._ended.items():
            if cluster_uid in holder.clusters and worker not in tried and self._is_good(worker, cluster_uid):
                return holder
        return None

    def _entry_changed(self, change: Change) -> None:
        worker = change.key.removeprefix(f"{PREFIX}.")
        if worker == self.worker or worker == change.key:
            return
        before = self._holders.pop(worker, None)
        after = None
        if change.after is not None:
            try:
                after = self._holders[worker] = decode(change.after.value)
            except errors.Invalid as exc:
                log.warning("registry_entry_refused", worker=worker, error=exc.message)
            self._ended.pop(worker, None)
        elif before is not None:
            self._ended[worker] = (before, asyncio.get_running_loop().time() + LINGER_S)
        self._unreachable.discard(worker)
        self._lacking = {pair for pair in self._lacking if pair[0] != worker}
        self._index(worker, before.clusters if before else {}, after.clusters if after else {})

    def _index(self, worker: str, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        for uid in before.keys() - after.keys():
            workers = self._of_cluster.get(uid, set())
            workers.discard(worker)
            if not workers:
                self._of_cluster.pop(uid, None)
                self._left[uid] = datetime.now(UTC)
        for uid in after.keys() - before.keys():
            self._of_cluster.setdefault(uid, set()).add(worker)
            self._left.pop(uid, None)
        for uid in after:
            self._wake(uid)

    def _wake(self, cluster_uid: str) -> None:
        for future in self._waiting.get(cluster_uid, ()):
            if not future.done():
                future.set_result(None)
