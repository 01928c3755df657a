"""The reverse connections of all clusters in this process: who is connected, which connection is free, who waits for one.

`agent_route` registers them after the handshake, `cluster_route` takes them as a relay source. They are used newest first; while one
rests, a ping proves that it lives. Where several front-door processes run, another `Tunnels` can stand here.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import structlog

from libs.common import errors
from libs.common.relay import tunnel
from libs.common.relay.decision import Source
from libs.common.relay.head import END, parse_response
from libs.common.relay.upstream import Upstream
from libs.common.resources.meta import format_time
from services.auth_proxy.clusters import ClusterFact

log = structlog.get_logger(component="tunnels")
_RECENT_S = 60.0
_MAX_WAITING = 1000
_REMEMBERED_INSTANCES = 64
Presence = Callable[[str, int], None]
"""Told a cluster's uid and how many reverse connections it has in this process now."""


class Tunnels(Protocol):
    """What the cluster route needs."""

    def source(self, cluster: ClusterFact, *, upgrade: bool = False) -> Source:
        """Where connections towards the cluster come from. `upgrade`: the connection will be given to one stream for good."""
        ...


class Connection(Upstream):
    """A reverse connection. `used` from the start: it rested at the hub, so the far side may have gone unnoticed."""

    __slots__ = ("instance", "ping_at")

    def __init__(self, home: ClusterTunnels, instance: str, first_ping_at: float) -> None:
        super().__init__(home)
        self.instance = instance
        self.ping_at = first_ping_at
        self.used = True


class Ping:
    """One ping under way: a conversation like an exchange, so that nobody takes the connection meanwhile."""

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection = connection
        self._part = b""
        self.deadline = now + tunnel.PING_TIMEOUT_S
        self.over = False
        connection.begin(self)
        connection.write(tunnel.PING)

    def response_data(self, data: bytes) -> None:
        self._part += data
        if END not in self._part:
            if len(self._part) > 4096:
                self._end(clean=False)
            return
        try:
            head = parse_response(self._part)
            self._end(clean=head.status == 204 and not head.close)
        except errors.BadRequest:
            self._end(clean=False)

    def upstream_ended(self, error: BaseException | None) -> None:
        self.over = True

    def upstream_writable(self, writable: bool) -> None:
        """A ping is smaller than any buffer."""

    def expire(self) -> None:
        if not self.over:
            self._end(clean=False)

    def _end(self, *, clean: bool) -> None:
        self.over = True
        self._connection.end(clean)


class ClusterTunnels:
    """The connections of one cluster: a relay source and the home of its connections. The newest instance of the agent wins."""

    def __init__(
        self, fact: ClusterFact, wait_s: float, started: float, now: Callable[[], datetime], changed: Presence
    ) -> None:
        self.fact = fact
        self._changed = changed
        self.idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._wait_s = wait_s
        self._now = now
        self._instance = ""
        self._superseded: deque[str] = deque(maxlen=_REMEMBERED_INSTANCES)
        self._here_at = started
        self._gone_since: datetime | None = None

    def admit(self, instance: str) -> None:
        """May this instance of the agent connect? Raises Conflict for one that a later one replaced."""
        if instance == self._instance:
            return
        away = not self._all and asyncio.get_running_loop().time() - self._here_at > _RECENT_S
        if instance in self._superseded and not away:
            raise errors.Conflict(
                f'another agent with the identity of cluster "{self.fact.name}" connected later: two agents run with one identity, stop one'
            )
        if self._instance:
            self._superseded.append(self._instance)
            if self._all:
                log.warning("agent_instance_replaced", cluster=self.fact.name, connections=len(self._all))
        self._instance = instance
        for connection in [c for c in self.idle if c.instance != instance]:
            connection.close()

    def add(self, instance: str, transport: asyncio.Transport) -> None:
        """Take over the transport of an agent that was admitted."""
        now = asyncio.get_running_loop().time()
        connection = Connection(self, instance, now + random.uniform(0.5, 1.5))
        transport.set_protocol(connection)
        connection.adopt(transport)
        if not self._all:
            log.info("cluster_connected", cluster=self.fact.name)
        self._all.add(connection)
        self._gone_since = None
        self.put_back(connection)
        self._changed(self.fact.uid, len(self._all))

    def close_all(self) -> None:
        """Cut everything: the cluster is gone, or its agent has another key."""
        for connection in list(self._all):
            connection.close()
        self._instance = ""

    # decision.Source

    def acquire(self) -> Upstream | None:
        while self.idle:
            connection = self.idle.pop()
            if connection.idle and not connection.transport.is_closing():
                return connection
        return None

    async def open(self) -> Upstream:
        ready = self.acquire()
        if ready is not None:
            return ready
        loop = asyncio.get_running_loop()
        if not self._all and loop.time() - self._here_at > _RECENT_S:
            raise errors.Unavailable(self._explain_absence())
        if len(self._waiting) >= _MAX_WAITING:
            raise errors.Unavailable(f'too many requests wait for cluster "{self.fact.name}"', retry_after_s=1)
        future: asyncio.Future[Connection] = loop.create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(self._wait_s):
                return await future
        except TimeoutError as exc:
            if future.done() and not future.cancelled():
                return future.result()
            raise self._explain_wait() from exc
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.put_back(future.result())
            raise
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    # upstream.Home

    def put_back(self, upstream: Upstream) -> None:
        assert isinstance(upstream, Connection)
        if upstream.instance != self._instance:
            upstream.close()
            return
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(upstream)
                return
        self.idle.append(upstream)

    def lost(self, upstream: Upstream) -> None:
        assert isinstance(upstream, Connection)
        self._all.discard(upstream)
        if upstream in self.idle:
            self.idle.remove(upstream)
        self._here_at = asyncio.get_running_loop().time()
        if not self._all:
            self._gone_since = self._now()
            log.warning("cluster_disconnected", cluster=self.fact.name)
        self._changed(self.fact.uid, len(self._all))

    @property
    def connected(self) -> int:
        return len(self._all)

    def _explain_wait(self) -> errors.Unavailable:
        if not self._all:
            return errors.Unavailable(self._explain_absence())
        name = self.fact.name
        return errors.Unavailable(
            f'all connections to cluster "{name}" are in use and no further one came', retry_after_s=1
        )

    def _explain_absence(self) -> str:
        since = self._gone_since or self.fact.last_heartbeat
        when = f"since {format_time(since)}" if since else "and its agent was never seen"
        return f'cluster "{self.fact.name}" is not connected {when}: see that its agent runs and reaches the hub'


class LocalTunnels:
    """All clusters whose agents dialled this process. `run` is its only task."""

    def __init__(self, wait_s: float, now: Callable[[], datetime]) -> None:
        self._wait_s = wait_s
        self._now = now
        self._clusters: dict[str, ClusterTunnels] = {}
        self._started = asyncio.get_running_loop().time()
        self._pings: list[Ping] = []
        self._listeners: list[Presence] = []
        self.draining = False

    def subscribe(self, listener: Presence) -> None:
        """Be told at once when a cluster's number of reverse connections changes. Called inside the change: take no time, never raise."""
        self._listeners.append(listener)

    def _changed(self, uid: str, connected: int) -> None:
        for listener in self._listeners:
            listener(uid, connected)

    def source(self, cluster: ClusterFact, *, upgrade: bool = False) -> ClusterTunnels:
        return self.cluster(cluster)

    def cluster(self, cluster: ClusterFact) -> ClusterTunnels:
        """The cluster's connections, whoever asks and however many there are."""
        found = self._clusters.get(cluster.uid)
        if found is None:
            found = self._clusters[cluster.uid] = ClusterTunnels(
                cluster, self._wait_s, self._started, self._now, self._changed
            )
        found.fact = cluster
        return found

    def drop(self, cluster_uid: str) -> None:
        """Cut all connections of a cluster that is gone or whose agent has another key."""
        found = self._clusters.pop(cluster_uid, None)
        if found is not None:
            found.close_all()

    def counts(self) -> dict[str, int]:
        """Uid of each cluster with connections here, and how many."""
        return {uid: cluster.connected for uid, cluster in self._clusters.items() if cluster.connected}

    @property
    def connected(self) -> int:
        """How many clusters have a connection now."""
        return sum(1 for cluster in self._clusters.values() if cluster.connected)

    def drain(self) -> None:
        """This process goes: what rests is closed now, everything else after its request, and agents dial another process."""
        self.draining = True
        self._close_idle()

    def _close_idle(self) -> None:
        for cluster in self._clusters.values():
            for connection in list(cluster.idle):
                connection.close()

    def close(self) -> None:
        for uid in list(self._clusters):
            self.drop(uid)

    async def run(self) -> None:
        """Ping what rests, cut what does not answer; once a second."""
        while True:
            await asyncio.sleep(1.0)
            self.tick(asyncio.get_running_loop().time())

    def tick(self, now: float) -> None:
        if self.draining:
            self._close_idle()
        for ping in self._pings:
            if ping.deadline <= now:
                ping.expire()
        self._pings = [ping for ping in self._pings if not ping.over]
        for cluster in self._clusters.values():
            for connection in [c for c in cluster.idle if c.ping_at <= now]:
                cluster.idle.remove(connection)
                connection.ping_at = now + tunnel.PING_EVERY_S * random.uniform(0.8, 1.2)
                self._pings.append(Ping(connection, now))
