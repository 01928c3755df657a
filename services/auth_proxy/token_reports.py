"""Tells identity which tokens were used, once a minute and at the end: beside the calls, never on their way."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.contracts.messages import TokenUse, TokenUses
from libs.common.contracts.methods import NOTE_TOKEN_USE
from libs.common.observe import log
from services.auth_proxy.token_cache import TokenCache

EVERY_S = 60.0
PER_MESSAGE = 500
TIMEOUT_S = 5.0


class TokenReports:
    """What identity did not take is told again the next time; what is not told at the end is lost, a minute at most."""

    def __init__(self, tokens: TokenCache, bus: Bus) -> None:
        self._tokens = tokens
        self._bus = bus
        self._log = log.get("auth_proxy")

    async def run(self) -> None:
        """Report, for ever; not all processes at the same moment."""
        while True:
            await asyncio.sleep(EVERY_S * random.uniform(0.75, 1.25))
            await self.report()

    async def report(self) -> None:
        """Report what was used since the last time."""
        uses = list(self._tokens.take_uses().items())
        for start in range(0, len(uses), PER_MESSAGE):
            part = uses[start : start + PER_MESSAGE]
            said = TokenUses(uses=[TokenUse(name=name, at=datetime.fromtimestamp(at, UTC)) for name, at in part])
            try:
                await self._bus.request(NOTE_TOKEN_USE.subject, said, NOTE_TOKEN_USE.reply, timeout_s=TIMEOUT_S)
            except errors.HerdsmanError as exc:
                self._log.info("token_uses_not_reported", count=len(uses) - start, reason=exc.message)
                self._tokens.keep_uses(dict(uses[start:]))
                return
