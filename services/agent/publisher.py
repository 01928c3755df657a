"""Tells the hub what is observed of one kind: changes soon, and everything again whenever something may have been lost.

Messages to the hub are heard at most once, so a complete listing goes out at start, after each reconnect and relist, when one is gone,
and now and then anyway. What is kept for each is its packed observation. Used by `observe_namespaces` and `observe_nodes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import structlog
from pydantic import BaseModel

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.kube.reflector import Changed, Deleted, Listed, Reflector

COALESCE_S = 1.0
"""What changes within so long goes in one message."""
LATER_S = 10.0
"""For what changes all the time and nobody waits for."""
COMPLETE_EVERY_S = 600.0
CHUNK_BYTES = 180_000
"""Below the 256 KiB that an agent may publish at once, with room for names."""
RETRY_S = 5.0
log = structlog.get_logger(__name__)

Render = Callable[[Mapping[str, bytes], bool], Sequence[BaseModel]]
"""Packed observations by name, and whether they are all that there is → messages that each fit."""


class Publisher:
    """`failed`: the event that a failure is logged as. Nothing is sent before the first complete listing has ended (`keep`)."""

    def __init__(
        self, bus: Bus, subject: str, render: Render, failed: str, monotonic: Callable[[], float] = time.monotonic,
        coalesce_s: float = COALESCE_S,
    ) -> None:  # fmt: skip
        self.entries: dict[str, bytes] = {}
        self.ready = False
        self._bus = bus
        self._subject = subject
        self._render = render
        self._failed = failed
        self._monotonic = monotonic
        self._coalesce_s = coalesce_s
        self._changed: set[str] = set()
        self._complete_at = 0.0
        self._due_at: float | None = None
        self._wake = asyncio.Event()

    def put(self, name: str, packed: bytes, *, soon: bool = True) -> None:
        """What one is like now; equal bytes are no news."""
        if self.entries.get(name) != packed:
            self.entries[name] = packed
            self._changed.add(name)
            self._send_in(0 if soon else LATER_S * random.uniform(0.8, 1.2))

    def drop(self, name: str) -> None:
        """One is gone: only a complete listing says that, so others that go soon are waited for."""
        if self.entries.pop(name, None) is not None:
            now = self._monotonic()
            self._complete_at = min(self._complete_at, now + COALESCE_S)
            self._send_in(max(0.0, self._complete_at - now))

    def keep(self, names: set[str]) -> None:
        """A complete listing has ended: whatever is not in it is gone."""
        for gone in self.entries.keys() - names:
            del self.entries[gone]
        self.ready = True
        self.repeat()

    def repeat(self) -> None:
        """Tell everything again: the hub may have missed anything."""
        self._complete_at = 0.0
        self._send_in(0)

    async def run(self) -> None:
        """Publish, for ever."""
        while True:
            await self._wait()
            if not self.ready or not self._bus.connected:
                continue  # `keep`, and `repeat` when the bus is back, wake us
            try:
                await self._send()
            except errors.HerdsmanError as exc:
                self._complete_at = 0.0
                self._send_in(RETRY_S * random.uniform(0.5, 1.5))
                log.warning(self._failed, error=exc.message)
            await asyncio.sleep(self._coalesce_s * random.uniform(1.0, 1.5))

    async def _send(self) -> None:
        complete = self._monotonic() >= self._complete_at
        names = sorted(self.entries if complete else self._changed & self.entries.keys())
        self._changed.clear()
        if complete:
            self._complete_at = self._monotonic() + COMPLETE_EVERY_S * random.uniform(0.8, 1.2)
        self._send_in(self._complete_at - self._monotonic())
        for message in self._render({name: self.entries[name] for name in names}, complete):
            await self._bus.publish(self._subject, message)

    def _send_in(self, seconds: float) -> None:
        moment = self._monotonic() + seconds
        if self._due_at is None or moment < self._due_at:
            self._due_at = moment
            self._wake.set()

    async def _wait(self) -> None:
        """Until something is due."""
        while self._due_at is None or self._due_at > self._monotonic():
            self._wake.clear()
            left = None if self._due_at is None else self._due_at - self._monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()
        self._due_at = None


async def follow(
    reflector: Reflector, take: Callable[[Mapping[str, Any]], str], drop: Callable[[Mapping[str, Any]], None], keep: Callable[[set[str]], None]
) -> None:  # fmt: skip
    """Watch, for ever. `take` is given each object as it is now and says what it is known by ("" = none of ours), `drop` one that is gone, `keep` the names of
    a listing that is complete.
    """
    listing: set[str] = set()
    async for seen in reflector.run():
        if isinstance(seen, Listed):
            listing = set() if seen.first else listing
            listing |= {take(item) for item in seen.items} - {""}
            if seen.last:
                keep(listing)
        elif isinstance(seen, Changed):
            take(seen.object)
        elif isinstance(seen, Deleted):
            drop(seen.object)


class _Listing(Protocol):
    complete: bool
    present: list[str]


L = TypeVar("L", bound=_Listing)


def render_listing(
    entries: Mapping[str, bytes], render: Callable[[list[str]], L], *, complete: bool, limit_bytes: int = CHUNK_BYTES
) -> list[L]:
    """Messages that each fit, made by `render` from names. The last of a complete listing closes it: it names what the others held."""
    messages = [render(names) for names in chunk(entries, complete=complete, limit_bytes=limit_bytes)]
    if complete:
        messages[-1].complete = True
        if len(messages) > 1:
            messages[-1].present = list(entries)
    return messages


def chunk(entries: Mapping[str, bytes], *, complete: bool, limit_bytes: int = CHUNK_BYTES) -> list[list[str]]:
    """The names whose observations go into each message. A complete listing in several ends with an empty one, for all names."""
    chunks: list[list[str]] = [[]]
    size = 0
    for name, packed in entries.items():
        if chunks[-1] and size + len(packed) > limit_bytes:
            chunks.append([])
            size = 0
        chunks[-1].append(name)
        size += len(packed)
    if complete and len(chunks) > 1:
        # The names of thousands take room of their own: they travel with no bodies.
        chunks.append([])
    elif not complete and not chunks[-1]:
        return []
    return chunks
