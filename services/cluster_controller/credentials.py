"""Agents' credentials: NATS user JWTs for keys that agents made themselves, and the list of keys that must not speak any more.

The server holds the list in the AGENTS account's JWT; our revocation records are where it comes from, so that it can be
pushed again whenever anything is in doubt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from libs.common.contracts.messages import AgentCredential
from libs.common.reconcile import DONE, Outcome, Reconciler, follow
from libs.common.resources.clusters import Cluster
from libs.common.store.informer import Informer
from services.cluster_controller.model import REVOCATIONS, parse_revocation

RENEW_SHARE = 2 / 3
"""An agent renews after this share of its JWT's life: one third is left for a hub that is away."""
REVOCATIONS_PUSHED = "revocations_pushed"
log = structlog.get_logger(__name__)

Mint = Callable[[str, str, int], str]
"""(cluster uid, public key, ttl in seconds) → NATS user JWT."""
Push = Callable[[Mapping[str, datetime]], Awaitable[None]]
"""Makes the bus refuse each key's JWTs that were issued up to the time given, and drop its connections."""


class Issuer(Protocol):
    def issue(self, cluster: Cluster, public_key: str) -> AgentCredential:
        """A credential of the cluster's agent, for this key."""
        ...


class AgentIssuer:
    """Signs locally, so it needs nobody and is fast."""

    def __init__(self, mint: Mint, ttl_s: int, now: Callable[[], datetime]) -> None:
        self._mint = mint
        self._ttl_s = ttl_s
        self._now = now

    def issue(self, cluster: Cluster, public_key: str) -> AgentCredential:
        return AgentCredential(
            cluster=cluster.name,
            cluster_uid=cluster.uid,
            jwt=self._mint(cluster.uid, public_key, self._ttl_s),
            expires_at=self._now() + timedelta(seconds=self._ttl_s),
            renew_after_s=int(self._ttl_s * RENEW_SHARE),
        )


def follow_revocations(informer: Informer, push: Push) -> Reconciler:
    """A reconciler that keeps the bus's list equal to the records of `informer` (prefix `revocations`). Run it; it starts with a push."""

    async def reconcile(_key: str) -> Outcome:
        await informer.synced.wait()
        revoked: dict[str, datetime] = {}
        for key, entry in informer.entries.items():
            if key.startswith(f"{REVOCATIONS}."):
                record = parse_revocation(entry.value)
                revoked[record.public_key] = record.at
        await push(revoked)
        log.info(REVOCATIONS_PUSHED, keys=len(revoked))
        return DONE

    reconciler = Reconciler("revocations", reconcile, workers=1)
    follow(informer, reconciler, lambda _change: ("account",), prefix=REVOCATIONS)
    reconciler.add("account")
    return reconciler
