"""What nobody needs any more goes: registration tokens that are used or expired, revocations and records that have outlived their JWTs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from libs.common import errors
from libs.common.resources.clusters import RegistrationToken
from libs.common.store.base import Entry, Store
from libs.common.store.informer import Informer
from libs.common.store.objects import Objects
from services.cluster_controller.model import parse_departed, parse_revocation
from services.cluster_controller.reconciler import delete_token
from services.cluster_controller.view import Clusters

EVERY_S = 600.0
KEEP_TOKENS = timedelta(days=1)
"""A used or expired token is shown for a day, so that one can see why an agent could not register."""
JWT_MARGIN = timedelta(hours=1)
RECORDS_SWEPT = "records_swept"
SWEEP_FAILED = "sweep_failed"
log = structlog.get_logger(__name__)


class Sweeper:
    """`jwt_ttl_s`: how long the JWTs live that this service issues."""

    def __init__(
        self, store: Store, clusters: Clusters, tokens: Objects[RegistrationToken], revocations: Informer, departed: Informer,
        jwt_ttl_s: int, now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._store = store
        self._clusters = clusters
        self._tokens = tokens
        self._revocations = revocations
        self._departed = departed
        self._jwt_ttl = timedelta(seconds=jwt_ttl_s)
        self._now = now

    async def run(self) -> None:
        """Sweep for ever, at jittered times."""
        while True:
            await asyncio.sleep(EVERY_S * random.uniform(0.5, 1.5))
            try:
                await self.sweep()
            except errors.HerdsmanError as exc:
                log.warning(SWEEP_FAILED, error=exc.message)

    async def sweep(self) -> int:
        """One round. Returns how many objects and records went."""
        now, swept = self._now(), 0
        for token in self._tokens.all():
            ended = token.status.used_at or token.spec.expires_at
            if ended + KEEP_TOKENS < now or self._clusters.by_uid(token.spec.cluster_uid) is None:
                await delete_token(self._store, token.name)
                swept += 1
        too_old = now - self._jwt_ttl - JWT_MARGIN
        for entry in list(self._revocations.entries.values()):
            if parse_revocation(entry.value).at < too_old:
                swept += await self._drop(entry)
        for entry in list(self._departed.entries.values()):
            if parse_departed(entry.value).at < too_old:
                swept += await self._drop(entry)
        if swept:
            log.info(RECORDS_SWEPT, count=swept)
        return swept

    async def _drop(self, entry: Entry) -> int:
        try:
            await self._store.delete(entry.key, entry.value, entry.revision)
        except (errors.Conflict, errors.NotFound):
            return 0  # somebody else was faster
        return 1
