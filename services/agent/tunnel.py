"""The reverse connections through which the hub reaches the API server: `libs.common.relay.dial` with this agent's identity and credential.

The API server's credential is asked for here, ahead of time, because the relay must not wait for it on each call.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

import structlog

from libs.common import errors
from libs.common.kube.endpoint import Endpoint
from libs.common.relay.dial import ReverseDialer, new_instance
from libs.common.relay.handshake import TunnelIdentity
from libs.common.relay.outbound import Hub
from libs.common.relay.pool import Address
from services.agent.identity import make_signer
from services.agent.state import Identity

REFRESH_EVERY_S = 10.0
CREDENTIAL_UNREADABLE = "api_server_credential_unreadable"
log = structlog.get_logger(__name__)


class Tunnel:
    """`open` is the number of connections to the hub."""

    def __init__(
        self, hub: Hub, identity: Identity, endpoint: Endpoint, context: ssl.SSLContext | None, idle: int
    ) -> None:
        if urlsplit(endpoint.url).path not in ("", "/"):
            raise errors.Invalid(
                f"the API server's URL {endpoint.url} has a path: the hub can only reach one at the root of its address"
            )
        self._endpoint = endpoint
        self._authorization = b""
        self._address = Address(
            "the cluster's API server", endpoint.host, endpoint.port, tls=context,
            server_hostname=(endpoint.server_name or endpoint.host) if context else None,
        )  # fmt: skip
        who = TunnelIdentity(identity.cluster_uid, identity.public_key, make_signer(identity.seed), new_instance())
        self._dialer = ReverseDialer(hub, who, lambda: self._address, lambda: self._authorization, idle=idle)

    @property
    def open(self) -> int:
        return self._dialer.connected

    @property
    def last_error(self) -> str:
        return self._dialer.last_error

    async def run(self) -> None:
        """Keep connections ready, for ever. Starts when the credential is known."""
        await self._refresh()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_fresh(), name="tunnel credential")
            tasks.create_task(self._dialer.run(), name="tunnel dialer")

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_EVERY_S)
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            self._authorization = (await self._endpoint.credential.authorization() or "").encode("ascii")
        except errors.HerdsmanError as exc:
            # The last one is kept: the API server says 401 if it is no good any more.
            log.error(CREDENTIAL_UNREADABLE, error=exc.message)
