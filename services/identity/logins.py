"""`status.lastLogin` of users, written in batches: a sign-in never waits for this, and many sign-ins of one person are one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from libs.common import errors
from libs.common.observe import log
from libs.common.resources.identity import User
from libs.common.store.base import Store
from libs.common.store.objects import modify

FLUSH_EVERY_S = 30.0


class LastLogins:
    """Holds the newest sign-in per user until it is written; bounded by the number of users. A crash loses half a minute."""

    def __init__(self, store: Store, now: Callable[[], datetime], *, every_s: float = FLUSH_EVERY_S) -> None:
        self._store = store
        self._now = now
        self._every_s = every_s
        self._pending: dict[str, tuple[str, datetime]] = {}
        self._log = log.get("identity")

    def note(self, user: User) -> None:
        """This user has signed in now."""
        self._pending[user.name] = (user.uid, self._now())

    async def run(self) -> None:
        """Write what is pending, for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.flush()

    async def flush(self) -> None:
        """Write all that is pending now; what cannot be written is kept for the next time, unless the user is gone."""
        pending, self._pending = self._pending, {}
        for name, (uid, moment) in pending.items():
            try:
                await modify(self._store, User, name, _setter(uid, moment), now=self._now)
            except errors.NotFound:
                continue
            except errors.HerdsmanError as exc:
                self._log.warning("last_login_not_written", user=name, error=exc.message)
                self._pending.setdefault(name, (uid, moment))


def _setter(uid: str, moment: datetime) -> Callable[[User], bool]:
    def mutate(user: User) -> bool:
        if user.uid != uid or (user.status.last_login is not None and user.status.last_login >= moment):
            return False
        user.status.last_login = moment
        return True

    return mutate
