"""The reverse connections of one cluster: a relay source, and the home of its connections. Owned by `tunnels`.

Agents that serve the same cluster stand side by side, and each request goes to the one that has the least to do. An identity that
was copied into another cluster must not: there the later agent wins, and the earlier one is told so.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from libs.common import errors
from libs.common.relay import sockets
from libs.common.relay.upstream import Upstream
from libs.common.resources.meta import format_time
from services.auth_proxy.clusters import ClusterFact
from services.auth_proxy.instances import Claim, Connection, Instance

log = structlog.get_logger(component="tunnels")
Presence = Callable[[str, int], None]
"""Told a cluster's uid and how many reverse connections it has in this process now."""
_RECENT_S = 60.0
_REMEMBERED_INSTANCES = 64


@dataclass(frozen=True, slots=True)
class TunnelLimits:
    """What one cluster may take of this process."""

    wait_s: float = 10.0
    """How long a request waits for a connection."""
    calls: int = 2000
    """Requests and streams under way, waiting ones included."""
    waiting: int = 1000
    instances: int = 8
    spare: int = 512
    """Connections beyond `calls`: eight agents with the most that they keep ready."""


class ClusterTunnels:
    """Invariant: who waits, waits because nothing is idle."""

    def __init__(
        self, fact: ClusterFact, limits: TunnelLimits, started: float, now: Callable[[], datetime], changed: Presence
    ) -> None:
        self.fact = fact
        self._limits = limits
        self._changed = changed
        self._instances: dict[str, Instance] = {}
        self._retired: list[Instance] = []
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._now = now
        self._superseded: deque[str] = deque(maxlen=_REMEMBERED_INSTANCES)
        self._here_at = started
        self._gone_since: datetime | None = None

    # agents

    def admit(self, claim: Claim) -> None:
        """May this agent process connect? Raises Conflict for one that a later one replaced, Unavailable when there are too many connections."""
        known = self._instances.get(claim.instance)
        if known is not None:
            known.ca = claim.ca
            known.kube_system = claim.kube_system or known.kube_system
            self._check_room()
            return
        away = not self.connected and asyncio.get_running_loop().time() - self._here_at > _RECENT_S
        if claim.instance in self._superseded and not away:
            raise errors.Conflict(
                f'another agent with the identity of cluster "{self.fact.name}" connected later: two agents run with one identity, stop one'
            )
        rivals = [i for i in self._instances.values() if not claim.kube_system or i.kube_system != claim.kube_system]
        if not rivals and len(self._instances) >= self._limits.instances:
            raise errors.Conflict(
                f'{self._limits.instances} agents serve cluster "{self.fact.name}" already: more are not admitted'
            )
        self._check_room()
        for rival in rivals:
            log.warning(
                "agent_instance_replaced", cluster=self.fact.name, connections=len(rival.all),
                same_cluster="unknown" if not (rival.kube_system and claim.kube_system) else "no",
            )  # fmt: skip
            self._superseded.append(rival.name)
            del self._instances[rival.name]
            self._retired.append(rival)
            rival.retire()
        self._instances[claim.instance] = Instance(claim, asyncio.get_running_loop().time())

    def add(self, instance: str, transport: asyncio.Transport) -> None:
        """Take over the transport of an agent that was admitted."""
        owner = self._instances[instance]
        connection = Connection(self, owner, asyncio.get_running_loop().time() + random.uniform(0.5, 1.5))
        transport.set_protocol(connection)
        connection.adopt(transport)
        sockets.tune(transport, sockets.PROMPT_KEEPALIVE)
        if not self.connected:
            log.info("cluster_connected", cluster=self.fact.name)
        owner.all.add(connection)
        self._gone_since = None
        self.put_back(connection)
        self._changed(self.fact.uid, self.connected)

    def close_all(self) -> None:
        """Cut everything: the cluster is gone, or its agent has another key."""
        for instance in [*self._instances.values(), *self._retired]:
            instance.cut()
        self._instances.clear()
        self._retired.clear()

    def tick(self, now: float, request: Callable[[], bytes], *, all_at_once: bool) -> None:
        for instance in list(self._instances.values()):
            instance.tick(now, request, all_at_once=all_at_once)
            self._drop_if_empty(instance)
        for instance in list(self._retired):
            instance.prune()
            self._drop_if_empty(instance)

    @property
    def connected(self) -> int:
        """Connections, without those that were given to a stream for good."""
        return sum(len(i.all) for i in self._instances.values()) + sum(len(i.all) for i in self._retired)

    @property
    def idle(self) -> list[Connection]:
        return [connection for instance in self._instances.values() for connection in instance.idle]

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return len(self._waiting)

    @property
    def instances(self) -> tuple[Instance, ...]:
        return tuple(self._instances.values())

    def check_calls(self) -> None:
        """Raises TooManyRequests when the cluster has as many calls under way as it may."""
        if self._under_way() < self._limits.calls:
            return
        for instance in (*self._instances.values(), *self._retired):
            instance.prune()
        if self._under_way() >= self._limits.calls:
            raise errors.TooManyRequests(
                f'cluster "{self.fact.name}" has {self._limits.calls} calls under way: no more are taken at a time',
                retry_after_s=1,
            )

    # decision.Source

    def acquire(self) -> Upstream | None:
        while True:
            least: Instance | None = None
            for instance in self._instances.values():
                if instance.idle and (least is None or instance.busy < least.busy):
                    least = instance
            if least is None:
                return None
            connection = least.take()
            if connection is not None:
                return connection

    async def open(self) -> Upstream:
        ready = self.acquire()
        if ready is not None:
            return ready
        loop = asyncio.get_running_loop()
        if not self.connected and loop.time() - self._here_at > _RECENT_S:
            raise errors.Unavailable(self._explain_absence())
        if len(self._waiting) >= self._limits.waiting:
            raise errors.TooManyRequests(f'too many requests wait for cluster "{self.fact.name}"', retry_after_s=1)
        future: asyncio.Future[Connection] = loop.create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(self._limits.wait_s):
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
        if upstream.instance.retired:
            upstream.close()
            return
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(upstream)
                return
        upstream.instance.idle.append(upstream)

    def lost(self, upstream: Upstream) -> None:
        assert isinstance(upstream, Connection)
        upstream.instance.forget(upstream)
        self._drop_if_empty(upstream.instance)
        self._here_at = asyncio.get_running_loop().time()
        connected = self.connected
        if not connected:
            self._gone_since = self._now()
            log.warning("cluster_disconnected", cluster=self.fact.name)
        self._changed(self.fact.uid, connected)

    def _drop_if_empty(self, instance: Instance) -> None:
        if instance.all or instance.given:
            return
        if instance.retired:
            if instance in self._retired:
                self._retired.remove(instance)
        elif self._instances.get(instance.name) is instance:
            del self._instances[instance.name]

    def _under_way(self) -> int:
        everybody = (*self._instances.values(), *self._retired)
        return sum(instance.busy for instance in everybody) + len(self._waiting)

    def _check_room(self) -> None:
        most = self._limits.calls + self._limits.spare
        if self.connected + sum(len(i.given) for i in self._instances.values()) >= most:
            raise errors.Unavailable(f'cluster "{self.fact.name}" has {most} connections already', retry_after_s=1)

    def _explain_wait(self) -> errors.Unavailable:
        if not self.connected:
            return errors.Unavailable(self._explain_absence())
        name = self.fact.name
        return errors.Unavailable(
            f'all connections to cluster "{name}" are in use and no further one came', retry_after_s=1
        )

    def _explain_absence(self) -> str:
        since = self._gone_since or self.fact.last_heartbeat
        when = f"since {format_time(since)}" if since else "and its agent was never seen"
        return f'cluster "{self.fact.name}" is not connected {when}: see that its agent runs and reaches the hub'
