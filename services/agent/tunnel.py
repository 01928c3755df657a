"""The reverse connections through which the hub reaches the API server: `libs.common.relay.dial` with this agent's identity and credential.

The API server's credential is asked for ahead of time (`relay.api_server`), because the relay must not wait for it on each call.
"""

from __future__ import annotations

import asyncio

from libs.common.kube.endpoint import Endpoint
from libs.common.relay.api_server import ApiServer
from libs.common.relay.dial import ReverseDialer, new_instance
from libs.common.relay.handshake import TunnelIdentity
from libs.common.relay.outbound import Hub
from services.agent.identity import make_signer
from services.agent.state import Identity


class Tunnel:
    """`open` is the number of connections to the hub."""

    def __init__(self, hub: Hub, identity: Identity, endpoint: Endpoint, idle: int) -> None:
        self._api_server = server = ApiServer("the cluster's API server", endpoint)
        who = TunnelIdentity(identity.cluster_uid, identity.public_key, make_signer(identity.seed), new_instance())
        self._dialer = ReverseDialer(hub, who, server.address, server.authorization, idle=idle, refused=server.refused)

    @property
    def open(self) -> int:
        return self._dialer.connected

    @property
    def last_error(self) -> str:
        return self._dialer.last_error

    async def run(self) -> None:
        """Keep connections ready, for ever. Starts when the credential is known."""
        await self._api_server.refresh()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._api_server.run(), name="tunnel credential")
            tasks.create_task(self._dialer.run(), name="tunnel dialer")
