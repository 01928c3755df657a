"""Looks after the store's disk: warns before it is full, and brings the store back when there is room again. Run by `run`.

A stream of nats-server that could not write takes no writes any more until the server is restarted, also long after room was
made. Reading goes on meanwhile, so the server is left alone while the disk is full: a restart would gain nothing then.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from libs.common import errors
from libs.common.bus.server import MIN_STORE_BYTES
from services.cli.up.disk import NEEDED_BYTES
from services.cli.up.programs import http_get

CHECK_EVERY_S = 3.0
ROOM_BYTES = MIN_STORE_BYTES
"""What must be free before the store is restarted: with less it would be full again at once."""
_PAUSES_S = (10.0, 600.0)
"""Between restarts that did not help: the first, the longest."""
_WRITE_ERROR = "write error"

StoreHealth = Callable[[], Awaitable[str]]
"""Returns the store's own words about a stream that takes no writes, "" while there is none or nobody answers."""


def store_health(port: int) -> StoreHealth:
    """What nats-server's /healthz on this loopback port says of writes. Other ailments have other healers: they are not told."""

    async def look() -> str:
        if not port:
            return ""
        status, words = await http_get("127.0.0.1", port, "/healthz")
        return _reason(words) if status == 503 and _WRITE_ERROR in words else ""

    return look


def _reason(answer: str) -> str:
    """The operating system's words at the end of the message: what goes before are paths and account keys."""
    try:
        message = str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        message = answer
    return message.rpartition(": ")[2][:200]


class StoreKeeper:
    """Says each thing once: low, full, restarted. `restart` returns when the server answers again."""

    def __init__(
        self, folder: Path, health: StoreHealth, restart: Callable[[], Awaitable[None]], say: Callable[[str], None],
        *, free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._health = health
        self._restart = restart
        self._say = say
        self._free_bytes = free_bytes
        self._monotonic = monotonic
        self._low = False
        self._told = ""
        self._pause_s, self._not_before = _PAUSES_S[0], 0.0

    async def run(self) -> None:
        """For a task of its own: looks every few seconds, for ever."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S * random.uniform(0.8, 1.2))
            try:
                await self.look()
            except (errors.HerdsmanError, OSError) as error:
                self._tell("unseen", f"the store's disk cannot be looked after: {error}")

    async def look(self) -> None:
        """One look at the disk and the store."""
        free = await asyncio.to_thread(self._free_bytes, self._folder)
        reason = await self._health()
        if not reason:
            self._warn(free)
            if self._monotonic() > self._not_before:
                self._pause_s = _PAUSES_S[0]
        elif free < ROOM_BYTES:
            self._tell(
                "full",
                f"the store takes no writes ({reason}): the hub can be read, and clusters can be used; "
                f"free {(ROOM_BYTES - free >> 20) + 1} MiB on the disk of {self._folder}, and it goes on by itself",
            )
        elif self._monotonic() >= self._not_before:
            await self._bring_back(reason, free)

    async def _bring_back(self, reason: str, free: int) -> None:
        began = self._monotonic()
        self._not_before = began + self._pause_s
        self._pause_s = min(2 * self._pause_s, _PAUSES_S[1])
        await self._restart()
        again = await self._health()
        if again:
            self._tell(
                "useless",
                f"the store was restarted and still takes no writes ({again}), although {free >> 20} MiB are free on the disk of "
                f"{self._folder}: check that disk; the next restart is in {self._not_before - began:.0f} s",
            )
            return
        self._say(
            f"the store took no writes ({reason}); now {free >> 20} MiB are free, so it was restarted in "
            f"{self._monotonic() - began:.1f} s and takes them again"
        )

    def _warn(self, free: int) -> None:
        self._told = ""
        if free < NEEDED_BYTES and not self._low:
            self._say(
                f"only {free >> 20} MiB are free on the disk of {self._folder}: without any, the hub takes no writes"
            )
        # Told again only after there was clearly more in between.
        self._low = free < NEEDED_BYTES if not self._low else free < 2 * NEEDED_BYTES

    def _tell(self, problem: str, text: str) -> None:
        """Say it, unless this problem was the last thing that was told."""
        if self._told != problem:
            self._say(text)
        self._told = problem
