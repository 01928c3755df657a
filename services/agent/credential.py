"""Keeps the agent's credential fresh: renewed over the bus at two thirds of its life, by the monotonic clock.

A JWT that is found in the state is renewed at the first connection, because how old it is can't be known without
trusting the wall clock. What no renewal can cure (revoked, expired, replaced) is said in the log with what to do.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import structlog

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.bus.credentials import Credential
from libs.common.contracts.messages import AgentCredential, AgentRenewal
from libs.common.contracts.methods import RENEW_AGENT
from libs.common.version import VERSION
from services.agent.identity import digest_of, read_token
from services.agent.state import Identity, State

CREDENTIAL_RENEWED = "credential_renewed"
RENEWAL_FAILED = "credential_renewal_failed"
RENEWAL_REFUSED = "credential_renewal_refused"
CREDENTIAL_EXPIRED = "credential_expired"
LOOK_EVERY_S = 5.0
COMPLAIN_EVERY_S = 600.0
REFUSED_PAUSE_S = 60.0
_BACKOFF_S = (1.0, 120.0)
log = structlog.get_logger(__name__)


class RefreshableBus(Bus, Protocol):
    def refresh(self) -> None:
        """Connect anew with what `CredentialKeeper.credential` gives now."""
        ...


class FreshToken(Exception):
    """Somebody put another registration token in place: the agent is meant to register anew."""


class CredentialKeeper:
    """Holds the identity in use. The bus asks for `credential` whenever it connects, so a renewed one is used from then on."""

    def __init__(
        self, identity: Identity, state: State, *, fresh: bool,
        monotonic: Callable[[], float] = time.monotonic, now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self.identity = identity
        self._writing = asyncio.Lock()
        self._state = state
        self._monotonic = monotonic
        self._now = now
        self._renew_at = monotonic() + (identity.renew_after_s if fresh else 0.0)
        self._complain_at = float("-inf")

    async def credential(self) -> Credential:
        """What is shown to the bus at each dial. Says so when it looks expired: the bus will refuse it, and only a person can help."""
        if datetime.fromisoformat(self.identity.expires_at) <= self._now() and self._monotonic() >= self._complain_at:
            self._complain_at = self._monotonic() + COMPLAIN_EVERY_S
            log.error(
                CREDENTIAL_EXPIRED, expired_at=self.identity.expires_at, cluster=self.identity.cluster,
                advice="the hub was away for too long, or this machine's clock is wrong; issue a fresh registration token "
                "(herdsman cluster import) and put it in the place of the old one: the agent registers again by itself",
            )  # fmt: skip
        return Credential(self.identity.jwt, self.identity.seed)

    async def run(self, bus: RefreshableBus) -> None:
        """Renew when it is time, for ever."""
        attempt = 0
        while True:
            await asyncio.sleep(min(LOOK_EVERY_S, max(0.05, self._renew_at - self._monotonic())))
            if self._monotonic() < self._renew_at or not bus.connected:
                continue
            try:
                await self.renew(bus)
                bus.refresh()
                attempt = 0
            except (errors.Denied, errors.NotFound) as exc:
                self._renew_at = self._monotonic() + REFUSED_PAUSE_S * random.uniform(0.5, 1.5)
                log.error(RENEWAL_REFUSED, error=exc.message, expires_at=self.identity.expires_at)
            except errors.HerdsmanError as exc:
                attempt += 1
                low, high = _BACKOFF_S
                self._renew_at = self._monotonic() + random.uniform(low / 2, min(high, low * 2.0 ** min(attempt, 10)))
                log.warning(RENEWAL_FAILED, error=exc.message, attempt=attempt, expires_at=self.identity.expires_at)

    async def update(self, **changes: Any) -> Identity:
        """Change the identity's fields, on disk first. One at a time, so that no change writes over another."""
        async with self._writing:
            changed = replace(self.identity, **changes)
            await self._state.save_identity(changed)
            self.identity = changed
            return changed

    async def renew(self, bus: Bus) -> None:
        """One renewal. The state is written before the JWT is used: what is used is never forgotten. Raises the hub's errors."""
        request = AgentRenewal(agent_version=VERSION, public_key=self.identity.public_key)
        answer = await bus.request(
            RENEW_AGENT.agent_subject(self.identity.cluster_uid), request, AgentCredential, timeout_s=10
        )
        renewed = await self.update(
            jwt=answer.jwt,
            cluster=answer.cluster,
            expires_at=answer.expires_at.isoformat(),
            renew_after_s=answer.renew_after_s,
        )
        self._renew_at = self._monotonic() + answer.renew_after_s * random.uniform(0.95, 1.0)
        log.info(CREDENTIAL_RENEWED, expires_at=renewed.expires_at)


async def watch_token(file: Path | None, known: set[str]) -> None:
    """Raise FreshToken when the file holds a token that is not among the digests `known`; else run for ever."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            digest = digest_of(read_token(file))
        except errors.Invalid:
            continue  # unreadable for a moment while it is replaced; at start it is an error
        if digest and digest not in known:
            raise FreshToken
