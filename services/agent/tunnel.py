"""The reverse connections through which the hub reaches the API server: `libs.common.relay.dial` with this agent's identity and credential.

The API server's credential is asked for ahead of time (`relay.api_server`), because the relay must not wait for it on each call.
"""

from __future__ import annotations

import asyncio

import structlog

from libs.common import errors
from libs.common.kube.client import KubeClient
from libs.common.kube.endpoint import Endpoint
from libs.common.relay.api_server import ApiServer
from libs.common.relay.dial import ReverseDialer, new_instance
from libs.common.relay.handshake import TunnelIdentity
from libs.common.relay.outbound import Hub
from services.agent.authorities import Authorities
from services.agent.identity import make_signer
from services.agent.state import Identity

LOOK_EVERY_S = 10.0
KUBE_SYSTEM_TIMEOUT_S = 3.0
KUBE_SYSTEM_UNKNOWN = "kube_system_uid_unknown"
log = structlog.get_logger(__name__)


class Tunnel:
    """`open` is the number of connections to the hub."""

    def __init__(
        self,
        hub: Hub,
        identity: Identity,
        endpoint: Endpoint,
        idle: int,
        *,
        client: KubeClient,
        authorities: Authorities,
    ) -> None:
        self._client = client
        self._kube_system = ""
        self._api_server = server = ApiServer("the cluster's API server", endpoint)
        who = TunnelIdentity(
            identity.cluster_uid, identity.public_key, make_signer(identity.seed), new_instance(),
            lambda: self._kube_system, lambda: authorities.digest,
        )  # fmt: skip
        self._dialer = ReverseDialer(
            hub, who, server.address, server.authorization, idle=idle, refused=server.refused, on_ca=authorities.told
        )

    @property
    def open(self) -> int:
        return self._dialer.connected

    @property
    def carrier(self) -> str:
        return self._dialer.carrier

    @property
    def last_error(self) -> str:
        return self._dialer.last_error

    async def run(self) -> None:
        """Keep connections ready, for ever. Starts when the credential is known."""
        await self._api_server.refresh()
        await self._name_cluster()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._api_server.run(), name="tunnel credential")
            tasks.create_task(self._dialer.run(), name="tunnel dialer")
            tasks.create_task(self._keep_named(), name="tunnel cluster")

    async def _keep_named(self) -> None:
        """An API server that was away at the start says it later."""
        while not self._kube_system:
            await asyncio.sleep(LOOK_EVERY_S)
            await self._name_cluster()

    async def _name_cluster(self) -> None:
        """Learn the uid of kube-system, once: it tells the hub which agents serve the same cluster."""
        try:
            found = await self._client.get("/api/v1/namespaces/kube-system", timeout_s=KUBE_SYSTEM_TIMEOUT_S)
            self._kube_system = str(found["metadata"]["uid"])
        except (errors.HerdsmanError, KeyError, TypeError) as exc:
            log.info(KUBE_SYSTEM_UNKNOWN, error=str(exc))
