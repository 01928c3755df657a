"""By which certificate authorities the agent knows its hub: those that it was given, or those that the hub itself announced since.

The hub announces a bundle on connections that were verified with the present one, so a new authority is believed because the old
one vouches for it. It is taken over only when the hub can be verified with it, kept in the state, and used for all that is dialled
from then on. Whoever gives the agent another file is believed more than anything learned before.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
from pathlib import Path
from typing import Protocol

import structlog

from libs.common import errors
from libs.common.crypto.bundle import digest_of, is_authority
from libs.common.relay import outbound, tunnel
from libs.common.relay.handshake import Handshake
from libs.common.relay.outbound import Hub
from services.agent.identity import trust, trust_pem
from services.agent.state import Identity

AUTHORITIES_LEARNED = "hub_ca_learned"
AUTHORITIES_REFUSED = "hub_ca_refused"
_ASK_S = 10.0
_AGAIN_S = 30.0
log = structlog.get_logger(__name__)


class Keeper(Protocol):
    """Who writes the identity: `credential.CredentialKeeper`."""

    async def update(self, *, hub_ca: str, given_ca: str) -> Identity: ...


class Authorities:
    """Invariant: `hub.tls` is `context`, and both trust exactly what `digest` names. Raises Invalid for a file that is no PEM."""

    def __init__(self, hub: Hub, ca_file: Path) -> None:
        self._hub = hub
        self.context = hub.tls or trust(ca_file)
        try:
            given = ca_file.read_bytes()
            self.digest = digest_of(given)
        except (OSError, ValueError) as exc:
            raise errors.Invalid(f"cannot read the hub's certificate authority {ca_file}: {exc}") from exc
        self._given = hashlib.sha256(given).hexdigest()
        self._announced = ""
        self._changed = asyncio.Event()

    def resume(self, identity: Identity) -> None:
        """Go on with what was learned in an earlier life, unless something else was given since."""
        if not identity.hub_ca or identity.given_ca != self._given:
            return
        try:
            self._use(trust_pem(identity.hub_ca), digest_of(identity.hub_ca.encode()))
        except (ssl.SSLError, ValueError) as exc:
            log.error(AUTHORITIES_REFUSED, error=f"the stored certificate authorities cannot be used: {exc}")

    def told(self, digest: str) -> None:
        """The hub said what it announces now; "" = nothing."""
        if digest and digest != self._announced:
            self._announced = digest
            self._changed.set()

    async def run(self, keeper: Keeper) -> None:
        """Take over what is announced, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._announced not in ("", self.digest):
                try:
                    await self._learn(keeper)
                except errors.HerdsmanError as exc:
                    log.error(AUTHORITIES_REFUSED, error=exc.message)
                    await asyncio.sleep(_AGAIN_S * random.uniform(0.5, 1.0))

    async def _learn(self, keeper: Keeper) -> None:
        pem = await self._fetch()
        try:
            digest = digest_of(pem)
            if not is_authority(pem):
                raise errors.Unavailable("the hub announces a certificate that is no authority's: it is not trusted")
            context = trust_pem(pem.decode("ascii"))
        except (ssl.SSLError, ValueError) as exc:
            raise errors.Unavailable("what the hub announces as its certificate authorities is no PEM") from exc
        # A bundle by which the hub itself can't be verified would cut the cluster off: it is not believed.
        transport, _ = await outbound.connect(Hub(self._hub.url, context, self._hub.environment), Handshake)
        transport.abort()
        await keeper.update(hub_ca=pem.decode("ascii"), given_ca=self._given)
        self._use(context, digest)
        self._announced = digest
        log.info(AUTHORITIES_LEARNED, digest=digest)

    async def _fetch(self) -> bytes:
        transport, connection = await outbound.connect(self._hub, Handshake)
        try:
            async with asyncio.timeout(_ASK_S):
                head, body = await connection.ask(
                    b"GET " + self._hub.prefix + tunnel.CA_PATH + b" HTTP/1.1\r\n"
                    + f"Host: {self._hub.authority}\r\nUser-Agent: herdsman-agent\r\nConnection: close\r\n\r\n".encode()
                )  # fmt: skip
        except TimeoutError as exc:
            raise errors.Unavailable("the hub did not say in time by which authorities it is known") from exc
        finally:
            transport.abort()
        if head.status != 200:
            raise errors.Unavailable(f"the hub does not say by which authorities it is known: status {head.status}")
        return body

    def _use(self, context: ssl.SSLContext, digest: str) -> None:
        self.context = self._hub.tls = context
        self.digest = digest
