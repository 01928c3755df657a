"""How a finished request gets to a cluster's API server: by one of its agent's connections, or directly where the hub has a credential."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from libs.common.relay.decision import Relay, Reshape
from libs.common.relay.head import MAX_HEAD, RequestHead, parse_request
from libs.common.relay.impersonation import Wish
from libs.common.relay.session import Session
from services.auth_proxy.authenticate import Caller
from services.auth_proxy.clusters import ClusterFact
from services.auth_proxy.direct import DirectClusters
from services.auth_proxy.identity import Block
from services.auth_proxy.tunnels import Tunnels


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call to a cluster that was let in, before it is known where it goes. `target` is what the cluster would see."""

    head: RequestHead
    session: Session
    caller: Caller
    cluster: ClusterFact
    target: bytes
    block: Block
    wish: Wish | None


Plainly = Callable[[Wanted], Relay]
"""Passes a call on as it is, as its caller."""


class Ways:
    def __init__(self, tunnels: Tunnels, direct: DirectClusters) -> None:
        self._tunnels = tunnels
        self._direct = direct

    def relay(self, cluster: ClusterFact, built: bytes, reshape: Reshape, came: RequestHead | None = None, *, upgrade: bytes = b"") -> Relay:  # fmt: skip
        """`came`: the head that `built` was made from, on whose connection what was read of it is remembered."""
        terminal = self._direct.find(cluster.name, cluster.uid)
        if terminal is None:
            return Relay(self._tunnels.source(cluster, upgrade=bool(upgrade)), built, reshape, upgrade)
        # The same bytes that an agent would get, read by the same code: what it refuses is refused here too.
        inner = parse_request(built, came.block.onward if came is not None else None)
        if came is not None:
            came.block.onward = inner.block if inner.block.weight <= MAX_HEAD else None
        return terminal.relay(inner, reshape)
