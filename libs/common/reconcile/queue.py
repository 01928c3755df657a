"""Which key is due next: each key once, however often it is added, and never to two workers at a time.

The size is bounded by the number of keys that exist, because a key waits at most once. `runner` takes from it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable


class KeyQueue:
    """Invariant: a key is waiting (due at one moment, the earliest that was asked for) or running, or both: added while running."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._running: set[str] = set()
        self._woken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    @property
    def running(self) -> int:
        return len(self._running)

    def add(self, key: str, after_s: float = 0.0) -> None:
        """Make `key` due in `after_s` seconds, or earlier if it was due earlier. Never waits."""
        due = self._monotonic() + after_s
        before = self._due.get(key)
        if before is not None and before <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._woken.set()

    async def take(self) -> str:
        """The key that is due first; it is running until `finish`. Waits until one is due and not running."""
        while True:
            key, wait_s = self._next()
            if key is not None:
                self._running.add(key)
                del self._due[key]
                return key
            self._woken.clear()
            try:
                async with asyncio.timeout(wait_s):  # not wait_for: before 3.12 it can swallow a cancellation
                    await self._woken.wait()
            except TimeoutError:
                continue

    def finish(self, key: str) -> None:
        """The key may be taken again; if it was added meanwhile, it is due as added."""
        self._running.discard(key)
        if key in self._due:
            heapq.heappush(self._heap, (self._due[key], next(self._order), key))
            self._woken.set()

    def _next(self) -> tuple[str | None, float | None]:
        """The key to run now, or how long to wait for one (None = until something is added or finished)."""
        now = self._monotonic()
        while self._heap:
            due, _, key = self._heap[0]
            if self._due.get(key) != due or key in self._running:  # superseded, or `finish` will put it back
                heapq.heappop(self._heap)
                continue
            if due > now:
                return None, due - now
            heapq.heappop(self._heap)
            if self._heap:
                self._woken.set()  # another worker may wait for the next one
            return key, None
        return None, None
