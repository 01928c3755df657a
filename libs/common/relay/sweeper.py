"""The engine's only timer: one tick a second looks at the deadlines of everything registered.

A timer per request would cost more than the request's parsing; a deadline here is an attribute, a second coarse.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

NEVER = float("inf")


class Swept(Protocol):
    """Whoever has a deadline in the loop's time. `expire` is called once it passed and must move it."""

    deadline: float

    def expire(self, now: float) -> None: ...


class Sweeper:
    """Owner of the tick; `add` and `discard` are cheap. Runs from the first `add` until `close`."""

    def __init__(self, tick_s: float = 1.0) -> None:
        self._tick_s = tick_s
        self._swept: set[Swept] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def add(self, swept: Swept) -> None:
        self._swept.add(swept)
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def discard(self, swept: Swept) -> None:
        self._swept.discard(swept)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        # Armed first, so that an error in one deadline cannot stop the clock of all others.
        self._timer = loop.call_later(self._tick_s, self._tick) if self._swept and not self._closed else None
        now = loop.time()
        for swept in [s for s in self._swept if s.deadline <= now]:
            swept.expire(now)
