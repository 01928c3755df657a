"""A recording log in memory. It does not imitate: the stream's bounds and ages, JetStream's permissions, reading while others write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime

from libs.common import errors
from libs.common.recording.chain import Message
from libs.common.recording.log import StoredPart


class MemoryLog:
    """Implements `RecordingLog`. `away` makes it unreachable, `refusing` raises that for good, `slow` is what each append waits for."""

    def __init__(self) -> None:
        self.parts: list[StoredPart] = []
        self.away = False
        self.refusing: errors.HerdsmanError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.appended = asyncio.Event()
        self.attempts = 0
        self._tried = asyncio.Event()
        self._seen: set[tuple[str, int]] = set()

    async def ensure(self) -> None:
        self._check()

    async def append(self, id_: str, message: Message) -> None:
        self.attempts += 1
        self._tried.set()
        self._check()
        await self.gate.wait()
        self._check()
        if (id_, message.number) not in self._seen:
            self._seen.add((id_, message.number))
            self.parts.append(StoredPart(id_, message.kind, message.data))
        self.appended.set()

    async def attempted(self, count: int) -> None:
        """Wait until something was appended, or tried to be, so many times in all."""
        async with asyncio.timeout(5):
            while self.attempts < count:
                self._tried.clear()
                await self._tried.wait()

    async def read(self, id_: str) -> AsyncGenerator[StoredPart, None]:
        self._check()
        for part in [p for p in self.parts if p.id == id_]:
            yield part

    async def read_ends(self, since: datetime | None) -> AsyncGenerator[StoredPart, None]:
        self._check()
        for part in [p for p in self.parts if p.kind != "part" and (since is None or p.id >= f"{since:%Y%m%dt%H%M%S}")]:
            yield part

    def _check(self) -> None:
        if self.away:
            raise errors.Unavailable("the message bus is away")
        if self.refusing is not None:
            raise self.refusing
