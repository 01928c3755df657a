"""The reverse connections of all clusters in this process: who is connected, which connection is free, who waits for one.

`doorstep` registers them after the handshake, `cluster_route` takes them as a relay source. They are used newest first; while one
rests, a ping proves that it lives. Where several front-door processes run, another `Tunnels` can stand here. Go on to
`cluster_tunnels` for one cluster, to `instances` for one agent process.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from libs.common.relay import tunnel
from libs.common.relay.decision import Source
from services.auth_proxy.cluster_tunnels import ClusterTunnels, Presence, TunnelLimits
from services.auth_proxy.clusters import ClusterFact

DRAIN_S = 3.0


class Tunnels(Protocol):
    """What the cluster route needs."""

    def source(self, cluster: ClusterFact, *, upgrade: bool = False) -> Source:
        """Where connections towards the cluster come from. `upgrade`: the connection will be given to one stream for good.

        Raises TooManyRequests when the cluster has as many calls under way as it may.
        """
        ...


class LocalTunnels:
    """All clusters whose agents dialled this process. `run` is its only task.

    `worker` names this process to agents: what they have with it lives and dies together.
    """

    def __init__(self, wait_s: float, now: Callable[[], datetime], limits: TunnelLimits | None = None) -> None:
        self.worker = secrets.token_hex(8)
        self.ca = ""
        """Digest of the certificate authorities by which the hub may be known; agents are told."""
        self.draining = False
        self._close_idle_at = float("inf")
        self._limits = limits or TunnelLimits(wait_s)
        self._now = now
        self._clusters: dict[str, ClusterTunnels] = {}
        self._started = asyncio.get_running_loop().time()
        self._listeners: list[Presence] = []

    def subscribe(self, listener: Presence) -> None:
        """Be told at once when a cluster's number of reverse connections changes. Called inside the change: take no time, never raise."""
        self._listeners.append(listener)

    def cluster(self, fact: ClusterFact) -> ClusterTunnels:
        """The cluster's connections, whoever asks and however many there are."""
        found = self._clusters.get(fact.uid)
        if found is None:
            found = self._clusters[fact.uid] = ClusterTunnels(
                fact, self._limits, self._started, self._now, self._changed
            )
        found.fact = fact
        return found

    def source(self, cluster: ClusterFact, *, upgrade: bool = False) -> ClusterTunnels:
        found = self.cluster(cluster)
        found.check_calls()
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
        """This process is about to stop: no agent is let in any more, and those that are here go elsewhere, each after it found a place.

        What runs goes on, and a request that comes meanwhile is still served. What still rests after `DRAIN_S` is closed: who found no
        other place until then finds one sooner without this.
        """
        self.draining = True
        now = asyncio.get_running_loop().time()
        self._close_idle_at = now + DRAIN_S
        self.tick(now)

    def close(self) -> None:
        for uid in list(self._clusters):
            self.drop(uid)

    async def run(self) -> None:
        """Ping what rests, cut what does not answer; once a second."""
        while True:
            await asyncio.sleep(1.0)
            self.tick(asyncio.get_running_loop().time())

    def tick(self, now: float) -> None:
        if self.draining and now >= self._close_idle_at:
            for cluster in self._clusters.values():
                for connection in cluster.idle:
                    connection.close()
        for cluster in list(self._clusters.values()):
            cluster.tick(now, self._ping, all_at_once=self.draining)

    def _ping(self) -> bytes:
        return tunnel.ping(self.ca, drain=self.draining)

    def _changed(self, uid: str, connected: int) -> None:
        for listener in self._listeners:
            listener(uid, connected)
