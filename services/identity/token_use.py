"""`status.lastUsed` of tokens and what the front door reports for it, written in batches: no call ever waits for this.

A token's last use is written once in some minutes at most. What is lost with a crash is a minute of reports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from libs.common import errors
from libs.common.bus.base import Message
from libs.common.contracts.messages import Empty, TokenUses
from libs.common.observe import log
from libs.common.resources.identity import Token
from libs.common.resources.meta import check_label
from libs.common.store.base import Store
from libs.common.store.objects import modify

FLUSH_EVERY_S = 30.0
WRITE_EVERY_S = 240.0
"""Each write makes every front door read the token once more."""
MOST = 50_000
MOST_WRITES = 2_000
"""In one flush; the rest waits for the next."""


class LastUses:
    """Holds the newest use per token until it is written, `MOST` of them; more are dropped, and reported again when used again.

    `used` is told of each token that is there, and when it was used.
    """

    def __init__(
        self, store: Store, now: Callable[[], datetime], used: Callable[[Token, datetime], None] = lambda _token, _at: None
    ) -> None:  # fmt: skip
        self._store = store
        self._now = now
        self._used = used
        self._pending: dict[str, datetime] = {}
        self._log = log.get("identity")

    async def note(self, request: TokenUses, _message: Message) -> Empty:
        """Take a report of the front door. Times to come count as now, names that are none as nothing."""
        now, dropped = self._now(), 0
        for use in request.uses:
            try:
                check_label(use.name)
            except ValueError:
                continue
            at = min(use.at, now)
            known = self._pending.get(use.name)
            if known is None and len(self._pending) >= MOST:
                dropped += 1
            elif known is None or known < at:
                self._pending[use.name] = at
        if dropped:
            self._log.warning("token_uses_dropped", count=dropped)
        return Empty()

    async def run(self) -> None:
        """Write what is pending, for ever."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write up to `MOST_WRITES` now; what cannot be written is kept for the next time, unless the token is gone."""
        for name in list(self._pending)[:MOST_WRITES]:
            at = self._pending.pop(name)
            try:
                token = await modify(self._store, Token, name, _setter(at), now=self._now)
            except errors.NotFound:
                continue
            except errors.HerdsmanError as exc:
                self._log.warning("last_uses_not_written", left=len(self._pending) + 1, error=exc.message)
                self._pending.setdefault(name, at)
                return
            self._used(token, at)


def _setter(at: datetime) -> Callable[[Token], bool]:
    def mutate(token: Token) -> bool:
        # A token that ends when unused is written more often, so that no front door believes it unused.
        every_s = min(WRITE_EVERY_S, token.spec.idle_seconds / 4) if token.spec.idle_seconds else WRITE_EVERY_S
        last = token.status.last_used
        if last is not None and at - last < timedelta(seconds=every_s):
            return False
        token.status.last_used = at
        return True

    return mutate
