"""Workers over a key queue: one worker for a key, a bounded number for all, backoff with full jitter for what failed.

Every reconciler of every service is one of these; `follow` feeds it from an informer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import structlog

from libs.common import errors
from libs.common.reconcile.outcome import After, Outcome, Terminal
from libs.common.reconcile.queue import KeyQueue

if TYPE_CHECKING:
    from libs.common.store.informer import Change, Informer

BASE_DELAY_S = 0.2
MAX_DELAY_S = 120.0
log = structlog.get_logger("reconcile")


class Reconciler:
    """Runs `reconcile(key)` for every key that is added. A crash loses nothing: at start all keys are added again."""

    def __init__(
        self,
        name: str,
        reconcile: Callable[[str], Awaitable[Outcome]],
        *,
        workers: int = 4,
        timeout_s: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.queue = KeyQueue(monotonic)
        self.failures: dict[str, int] = {}
        self._reconcile = reconcile
        self._workers = workers
        self._timeout_s = timeout_s

    def add(self, key: str, after_s: float = 0.0) -> None:
        """Something about `key` may have changed: look at it soon."""
        self.queue.add(key, after_s)

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._workers):
                tasks.create_task(self._work(), name=f"{self.name} worker {number}")

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            try:
                await self._attempt(key)
            finally:
                self.queue.finish(key)

    async def _attempt(self, key: str) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                outcome = await self._reconcile(key)
        except errors.HerdsmanError as exc:
            self._again(key, exc.message, exc if isinstance(exc, errors.Internal) else None)
        except TimeoutError:
            self._again(key, f"took longer than {self._timeout_s:g} s", None)
        except Exception as exc:  # noqa: BLE001 - a bug in one key's reconcile must not stop the others; its trace is logged
            self._again(key, str(exc) or type(exc).__name__, exc)
        else:
            self.failures.pop(key, None)
            if isinstance(outcome, After):
                self.queue.add(key, outcome.seconds)
            elif isinstance(outcome, Terminal):
                log.warning("reconcile_given_up", reconciler=self.name, key=key, reason=outcome.reason)

    def _again(self, key: str, why: str, bug: BaseException | None) -> None:
        failed = self.failures[key] = self.failures.get(key, 0) + 1
        delay_s = backoff_s(failed)
        self.queue.add(key, delay_s)
        tell = log.error if bug is not None else log.warning
        tell(
            "reconcile_failed", reconciler=self.name, key=key, error=why, attempt=failed, retry_in_s=round(delay_s, 2),
            exc_info=bug,
        )  # fmt: skip


def backoff_s(failed: int) -> float:
    """Exponential with full jitter, never below half the base, so that a crowd spreads out and nobody spins."""
    ceiling = min(MAX_DELAY_S, BASE_DELAY_S * 2 ** min(failed, 20))
    return random.uniform(BASE_DELAY_S / 2, ceiling)


def follow(
    informer: Informer, reconciler: Reconciler, keys_of: Callable[[Change], Iterable[str]], *, prefix: str = ""
) -> Callable[[], None]:
    """Add the keys that `keys_of` names for every change under `prefix` (and for all that is there already)."""

    def on_change(change: Change) -> None:
        if prefix and not change.key.startswith(f"{prefix}."):
            return
        for key in keys_of(change):
            reconciler.add(key)

    return informer.subscribe(on_change, replay=True)
