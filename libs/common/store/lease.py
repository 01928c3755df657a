"""Leases: of many replicas one does the work, and another takes over soon after it stops.

A lease is an entry with a time to live; who renews it in time keeps it. Its holder counts the time from before each write was
sent, so that it stops before anybody else can begin, however late an answer comes. What the holder writes to the same bucket is
compare-and-set, which fences a holder that was asleep; `token` fences what goes elsewhere.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable

import structlog

from libs.common import errors
from libs.common.store.base import Store

MARGIN_S = 0.2
"""Held for so much shorter than the entry lives: clocks of two machines do not run equally fast."""


class Lease:
    """One contender. Invariant: while `is_held()`, no other contender's `is_held()` is true."""

    def __init__(
        self, store: Store, key: str, holder: str, *, ttl_s: int = 15, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.key = key
        self.holder = holder
        self.token = 0
        """Rises with every change of hands."""
        self._store = store
        self._ttl_s = ttl_s
        self._monotonic = monotonic
        self._revision = 0
        self._until = 0.0
        self._log = structlog.get_logger().bind(logger="lease", lease=key, holder=holder)

    def is_held(self) -> bool:
        return self._revision > 0 and self._monotonic() < self._until

    async def acquire(self) -> bool:
        """Try to take the lease. False while somebody else has it. Raises the store's errors."""
        began = self._monotonic()
        try:
            async with asyncio.timeout(self._ttl_s):
                revision = await self._store.create(self.key, self._value(), ttl_s=self._ttl_s)
        except (errors.AlreadyExists, TimeoutError):
            return False
        self._keep(revision, began)
        self.token = revision
        self._log.info("lease_acquired", token=revision)
        return self.is_held()

    async def renew(self) -> bool:
        """Extend the lease. False when it is lost. Raises nothing while there is time to try again."""
        began = self._monotonic()
        try:
            async with asyncio.timeout(max(0.0, self._until - began)):
                revision = await self._store.update(self.key, self._value(), self._revision, ttl_s=self._ttl_s)
        except errors.Conflict:
            self._revision = 0
            return False
        except (errors.Unavailable, errors.Timeout, TimeoutError) as exc:
            self._log.warning("lease_not_renewed", error=str(exc) or "no answer while it was held")
            # An update whose answer was lost may have raised the revision: only a fresh acquisition can tell.
            if isinstance(exc, (errors.Timeout, TimeoutError)):
                self._revision = 0
                return False
            return self.is_held()
        self._keep(revision, began)
        return self.is_held()

    async def release(self) -> None:
        """Give it back, so that another need not wait for its end. Best effort."""
        revision, self._revision = self._revision, 0
        if revision:
            try:
                await self._store.delete(self.key, self._value(), revision)
            except errors.HerdsmanError as exc:
                self._log.info("lease_left_to_expire", error=exc.message)

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """For ever: wait for the lease and run `work` while it is held; `work` is cancelled before somebody else can begin."""
        try:
            while True:
                if await self._acquired():
                    await self._work(work)
                await asyncio.sleep(self._ttl_s / 3 * random.uniform(0.5, 1.0))
        finally:
            await self.release()

    async def _acquired(self) -> bool:
        try:
            return await self.acquire()
        except (errors.Unavailable, errors.Timeout) as exc:
            self._log.warning("lease_not_tried", error=exc.message)
            return False

    async def _work(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await work()

        task = asyncio.create_task(run(), name=f"work under lease {self.key}")
        try:
            while self.is_held() and not task.done():
                pause_s = max(0.0, min(self._ttl_s / 3, self._until - self._monotonic()))
                await asyncio.wait({task}, timeout=pause_s)
                if not task.done() and not await self.renew():
                    self._log.error("lease_lost", advice="the work under it was stopped; another replica takes over")
                    break
        finally:
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    def _keep(self, revision: int, began: float) -> None:
        self._revision = revision
        self._until = began + self._ttl_s - MARGIN_S

    def _value(self) -> bytes:
        """Unlike any other: a write whose answer was lost is recognised by its bytes."""
        return f"{self.holder} {secrets.token_hex(8)}".encode()
