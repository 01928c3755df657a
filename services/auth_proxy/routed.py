"""Where connections to a cluster come from when several front-door processes run: from this one's own, else through another's.

Implements `tunnels.Tunnels`. An own connection that is ready always comes first; then a process that the registry knows; then whatever
comes first of an own connection that is set free or made, and another process that says it has some.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog

from libs.common import errors
from libs.common.relay.decision import Source
from libs.common.relay.upstream import Upstream
from libs.common.resources.meta import format_time
from services.auth_proxy.clusters import ClusterFact
from services.auth_proxy.holders import Holder
from services.auth_proxy.hops import HopConnection, Hops
from services.auth_proxy.registry import Registry
from services.auth_proxy.tunnels import LocalTunnels

log = structlog.get_logger(component="tunnels")
_RECENT_S = 60.0


class RoutedTunnels:
    """`wait_s`: how long a request waits for a cluster that nobody has at the moment and somebody had a moment ago."""

    def __init__(self, local: LocalTunnels, registry: Registry, hops: Hops, wait_s: float) -> None:
        self.local = local
        self.registry = registry
        self.hops = hops
        self.wait_s = wait_s
        self.hopped = 0
        """Requests that went to another process, since the start."""
        self._sources: dict[str, tuple[RoutedSource, RoutedSource]] = {}

    def source(self, cluster: ClusterFact, *, upgrade: bool = False) -> RoutedSource:
        """Raises TooManyRequests when the cluster has as many calls under way here as it may."""
        pair = self._sources.get(cluster.uid)
        if pair is None:
            pair = RoutedSource(self, cluster, upgrade=False), RoutedSource(self, cluster, upgrade=True)
            self._sources[cluster.uid] = pair
        found = pair[upgrade]
        found.fact = cluster
        self.local.cluster(cluster).check_calls()
        return found

    def forget(self, cluster_uid: str) -> None:
        """The cluster is gone."""
        self._sources.pop(cluster_uid, None)


class RoutedSource:
    """A `decision.Source` of one cluster. An upgrade takes a fresh hop: that connection is spent on it."""

    def __init__(self, tunnels: RoutedTunnels, fact: ClusterFact, *, upgrade: bool) -> None:
        self._tunnels = tunnels
        self.fact = fact
        self._upgrade = upgrade

    def acquire(self) -> Upstream | None:
        own = self._own().acquire()
        if own is not None or self._upgrade:
            return own
        holder = self._tunnels.registry.find(self.fact.uid)
        connection = self._tunnels.hops.acquire(holder) if holder is not None else None
        return self._aimed(connection, holder) if connection is not None and holder is not None else None

    async def open(self) -> Upstream:
        tried: set[str] = set()
        hop = self.acquire() or await self._open_hop(tried)
        if hop is not None:
            return hop
        loop = asyncio.get_running_loop()
        own = loop.create_task(self._own().open(), name="own-connection")
        other = loop.create_task(self._wait_for_change(tried), name="hop-connection")
        won: Upstream | None = None
        try:
            await asyncio.wait({own, other}, return_when=asyncio.FIRST_COMPLETED)
            if not other.done() and own.exception() is not None and self._was_elsewhere_lately():
                await asyncio.wait({other})
            won = self._first_of(own, other)
            return won
        finally:
            for task in (own, other):
                task.cancel()
            for outcome in await asyncio.gather(own, other, return_exceptions=True):
                if isinstance(outcome, Upstream) and outcome is not won:
                    outcome.end(clean=True)

    def _own(self) -> Source:
        # Not `source`: whether one more call may begin was asked when it came, and nobody catches an error from `acquire`.
        return self._tunnels.local.cluster(self.fact)

    def _aimed(self, connection: HopConnection, holder: Holder) -> HopConnection:
        self._tunnels.hopped += 1
        uid, registry = self.fact.uid, self._tunnels.registry
        return connection.aim(uid, lambda: registry.lacks(holder, uid))

    async def _open_hop(self, tried: set[str]) -> Upstream | None:
        """A hop to some process that the registry names. None when none is named, or none of them can be dialled."""
        registry = self._tunnels.registry
        while (holder := registry.find(self.fact.uid, tried)) is not None:
            tried.add(holder.worker)
            try:
                return self._aimed(await self._tunnels.hops.open(holder), holder)
            except errors.Unavailable as exc:
                log.info("hop_not_dialled", worker=holder.worker, cluster=self.fact.name, error=exc.message)
                registry.unreachable(holder)
        return None

    async def _wait_for_change(self, tried: set[str]) -> Upstream | None:
        """A connection once the cluster came to some process; None after `wait_s`."""
        try:
            async with asyncio.timeout(self._tunnels.wait_s):
                while True:
                    await self._tunnels.registry.wait_for(self.fact.uid)
                    found = self.acquire() or await self._open_hop(tried)
                    if found is not None:
                        return found
        except TimeoutError:
            return None

    def _was_elsewhere_lately(self) -> bool:
        """Whether another process lost the cluster a moment ago, so that it is worth waiting although it is long gone from here."""
        left = self._tunnels.registry.left_at(self.fact.uid)
        return left is not None and (datetime.now(UTC) - left).total_seconds() < _RECENT_S

    def _first_of(self, own: asyncio.Task[Upstream], other: asyncio.Task[Upstream | None]) -> Upstream:
        """What came, or the reason why nothing did. Raises Unavailable."""
        if other.done() and (found := other.result()) is not None:
            return found
        reason = own.exception() if own.done() else None
        if reason is None and own.done():
            return own.result()
        left = self._tunnels.registry.left_at(self.fact.uid)
        seen = self.fact.last_heartbeat
        busy = isinstance(reason, errors.Unavailable) and reason.retry_after_s is not None
        if busy or left is None or (seen is not None and seen > left):
            raise reason or errors.Unavailable(f'cluster "{self.fact.name}" is not connected')
        raise errors.Unavailable(
            f'cluster "{self.fact.name}" is not connected since {format_time(left)}: see that its agent runs and reaches the hub'
        )
