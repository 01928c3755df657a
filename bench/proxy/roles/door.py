"""The front door by its own `build`, state in memory stores, with people, clusters and roles in it.

Clusters `direct0` … are reached at the API server's address, `reverse` through an agent's connections.
"""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

from bench.proxy import scene
from bench.proxy.roles import talk
from libs.common.relay.decision import Decision, Source
from libs.common.relay.pool import Address, Pool
from libs.common.relay.sweeper import Sweeper
from services.auth_proxy import main as front_door
from services.auth_proxy.cluster_route import ClusterRoute
from services.auth_proxy.clusters import ClusterFact
from services.auth_proxy.tunnels import LocalTunnels
from tests.auth_proxy.door import Door, open_door

ROLES = ("cluster-owner", "cluster-member", "log-reader")
DIRECT = 4
"""Several, because the connections to one cluster are limited and 10,000 watches are more than that."""


async def serve(config: dict[str, Any]) -> None:
    reach_directly(Path(config["backend_folder"]) / "tls.crt", config["backend"])
    async with open_door(Path(config["folder"]), stop_timeout_s=0.1, **config.get("settings", {})) as door:
        tokens = {name: await make_member(door, name) for name in config["people"]}
        cluster = door.uids["cluster/reverse"]

        async def handle(command: dict[str, Any]) -> dict[str, Any]:
            began = time.monotonic()
            await door.user(command["name"], enabled=command["do"] == "enable")
            return {"began": began}

        await talk.serve(
            handle, port=door.port, tokens=tokens, cluster=cluster, seed=door.keys["reverse"].seed.decode(),
        )  # fmt: skip


async def make_member(door: Door, name: str) -> str:
    """A person with three roles in every cluster; returns the token."""
    person = await door.user(name)
    for role in ROLES:
        await door.role(role)
    for cluster in ("reverse", *(f"direct{n}" for n in range(DIRECT))):
        if f"cluster/{cluster}" not in door.uids:
            await door.cluster(cluster)
        for role in ROLES:
            await door.bind(person, cluster, role)
    return await door.token(person)


def reach_directly(certificate: Path, port: int) -> None:
    """Give clusters whose name begins with `direct` a pool to the API server, and their requests its credential."""
    address = Address(
        "the API server", "127.0.0.1", port, tls=ssl.create_default_context(cafile=str(certificate)), server_hostname="localhost"
    )  # fmt: skip
    line = f"\r\nAuthorization: {scene.API_CREDENTIAL}\r\n".encode()

    class Tunnels(LocalTunnels):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._pools: dict[str, Pool] = {}
            self._sweeper = Sweeper()

        def source(self, cluster: ClusterFact, *, upgrade: bool = False) -> Any:
            if not cluster.name.startswith("direct"):
                return super().source(cluster, upgrade=upgrade)
            pool = self._pools.get(cluster.name)
            if pool is None:
                pool = self._pools[cluster.name] = Pool(lambda: address, sweeper=self._sweeper)
            source: Source = pool.fresh if upgrade else pool
            return source

    class Route(ClusterRoute):
        def _relay(self, *arguments: Any) -> Decision:
            decision: Any = super()._relay(*arguments)
            if arguments[3].startswith("direct"):
                decision.head = decision.head.replace(b"\r\n", line, 1)
            return decision

    vars(front_door).update(LocalTunnels=Tunnels, ClusterRoute=Route)


if __name__ == "__main__":
    talk.run(serve)
