"""How an agent gets in: a person issues a registration token, the agent exchanges it, once, for a credential of its own."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from libs.common import errors
from libs.common.access.live import HasGrants
from libs.common.apiserver import rights
from libs.common.bus.base import Message
from libs.common.contracts.messages import (
    AgentCredential,
    AgentRegistration,
    IssuedRegistration,
    ManifestRequest,
    RegistrationIssue,
)
from libs.common.crypto.envelope import Verifier
from libs.common.resources.clusters import (
    Cluster,
    RegistrationToken,
    RegistrationTokenPrivate,
    RegistrationTokenSpec,
)
from libs.common.resources.meta import ObjectMeta, OwnerReference
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Store
from libs.common.store.objects import Objects, encode_unique, read
from services.cluster_controller.credentials import Issuer
from services.cluster_controller.model import (
    RegistrationSecret,
    check_public_key,
    make_registration_secret,
    parse_registration_secret,
    revocation_key,
)
from services.cluster_controller.rules import REGISTERED, check_registration
from services.cluster_controller.store import save_registration

MIN_TTL_S, MAX_TTL_S = 60, 7 * 86_400
MAX_LIVE_TOKENS = 20
"""Unused, unexpired registration tokens a cluster may have: a script that asks in a loop must not fill the store."""
CAS_ATTEMPTS = 5

AGENT_REGISTERED = "agent_registered"
REGISTRATION_ISSUED = "registration_issued"
REGISTRATION_REFUSED = "registration_refused"
log = structlog.get_logger(__name__)


class Registration:
    """Handlers of issue_registration, check_registration and register_agent."""

    def __init__(
        self, store: Store, tokens: Objects[RegistrationToken], verifier: Verifier, grants: HasGrants, issuer: Issuer,
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._store = store
        self._tokens = tokens
        self._verifier = verifier
        self._grants = grants
        self._issuer = issuer
        self._now = now

    async def handle_issue(self, request: RegistrationIssue, _message: Message | None = None) -> IssuedRegistration:
        """A fresh token for a cluster that the caller may register agents for. Raises NotFound, Denied, Conflict, TooManyRequests."""
        principal = self._verifier.open(request.identity)
        rights.check_caller(principal, "create")
        cluster = await self._find_cluster(request.cluster)
        grants = self._grants.current
        if cluster is None or not grants.is_allowed(principal, "create", "registrationtokens", cluster=request.cluster):
            visible = grants.visible_clusters(principal)
            if cluster is None or (visible is not None and request.cluster not in visible):
                raise errors.not_found("clusters.management.herdsman.dev", request.cluster)
            raise errors.Denied(
                f'user "{principal.user}" cannot issue registration tokens for cluster "{request.cluster}"'
            )
        if cluster.deleting:
            raise errors.Conflict(f'cluster "{cluster.name}" is being deleted: no agent can register for it')
        now = self._now()
        live = [
            t
            for t in self._tokens.all()
            if t.spec.cluster_uid == cluster.uid and t.status.used_at is None and t.spec.expires_at > now
        ]
        if len(live) >= MAX_LIVE_TOKENS:
            raise errors.TooManyRequests(
                f'cluster "{cluster.name}" has {len(live)} unused registration tokens: use or delete one first'
            )
        secret = make_registration_secret()
        token = _make_token(secret, cluster, now, min(max(request.ttl_s, MIN_TTL_S), MAX_TTL_S))
        await self._store.create(BY_MODEL[RegistrationToken].key(token.name), encode_unique(token))
        log.info(
            REGISTRATION_ISSUED,
            cluster=cluster.name,
            cluster_id=cluster.uid,
            token=token.name,
            principal_id=principal.principal_id,
        )
        return IssuedRegistration(
            token=secret.text, cluster=cluster.name, cluster_uid=cluster.uid, expires_at=token.spec.expires_at
        )

    async def handle_check(self, request: ManifestRequest, _message: Message | None = None) -> IssuedRegistration:
        """Which cluster an unused token is for. Raises as `rules.check_registration`."""
        secret = parse_registration_secret(request.token)
        token, cluster = await self._find(secret)
        check_registration(secret, token, cluster, self._now())
        assert token is not None
        return IssuedRegistration(
            token=secret.text,
            cluster=token.spec.cluster,
            cluster_uid=token.spec.cluster_uid,
            expires_at=token.spec.expires_at,
        )

    async def handle_register(self, request: AgentRegistration, _message: Message | None = None) -> AgentCredential:
        """Exchange. Idempotent for one token and one key. Raises as `rules.check_registration`; Invalid for a key that is none."""
        check_public_key(request.public_key)
        secret = parse_registration_secret(request.token)
        for attempt in range(CAS_ATTEMPTS):
            try:
                return await self._register(secret, request)
            except errors.Unauthenticated as exc:
                log.warning(REGISTRATION_REFUSED, token=secret.name, reason=exc.message)
                raise
            except _LostRaceError:
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))
        raise errors.Conflict("the cluster changes faster than an agent can be registered: try again")

    async def _register(self, secret: RegistrationSecret, request: AgentRegistration) -> AgentCredential:
        now = self._now()
        token, cluster = await self._find(secret)
        check_registration(secret, token, cluster, now, request.public_key)
        assert token is not None
        assert cluster is not None
        credential = self._issuer.issue(cluster, request.public_key)
        before = cluster.status.agent.public_key
        if token.status.used_at is not None:
            return credential
        await self._check_not_revoked(request.public_key)
        token.status.used_at = now
        agent = cluster.status.agent
        agent.public_key, agent.registered_at, agent.version = request.public_key, now, request.agent_version
        cluster.status.set_condition(
            REGISTERED, True, "AgentRegistered", "an agent has registered", now, cluster.metadata.generation
        )
        try:
            await save_registration(self._store, token, cluster, before if before != request.public_key else "", now)
        except errors.Conflict as exc:
            raise _LostRaceError from exc
        log.info(
            AGENT_REGISTERED, cluster=cluster.name, cluster_id=cluster.uid, token=token.name, replaced=bool(before)
        )
        return credential

    async def _check_not_revoked(self, public_key: str) -> None:
        try:
            await self._store.get(revocation_key(public_key))
        except errors.NotFound:
            return
        raise errors.Conflict("this agent key was revoked: delete the agent's state, so that it makes a new one")

    async def _find(self, secret: RegistrationSecret) -> tuple[RegistrationToken | None, Cluster | None]:
        """Token and cluster from the store itself: a token must not be used twice because a copy lags."""
        try:
            token = await read(self._store, RegistrationToken, secret.name)
        except errors.NotFound:
            return None, None
        return token, await self._find_cluster(token.spec.cluster)

    async def _find_cluster(self, name: str) -> Cluster | None:
        try:
            return await read(self._store, Cluster, name)
        except (errors.NotFound, ValueError):
            return None


class _LostRaceError(Exception):
    """Somebody wrote between read and batch."""


def _make_token(secret: RegistrationSecret, cluster: Cluster, now: datetime, ttl_s: int) -> RegistrationToken:
    return RegistrationToken(
        metadata=ObjectMeta(
            name=secret.name, uid=str(uuid.uuid4()), creation_timestamp=now, generation=1,
            owner_references=[OwnerReference(api_version=cluster.api_version, kind=cluster.kind, name=cluster.name, uid=cluster.uid)],
        ),
        spec=RegistrationTokenSpec(cluster=cluster.name, cluster_uid=cluster.uid, expires_at=now + timedelta(seconds=ttl_s)),
        private=RegistrationTokenPrivate(secret_hash=secret.hash),
    )  # fmt: skip
