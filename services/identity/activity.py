"""`status.lastActivityTime` of users: when they last used a token, written coarsely and in batches. No call ever waits for this.

`token_use` tells of each use that is reported; a sign-in is written with `status.lastLogin` by `logins`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from libs.common import errors
from libs.common.observe import log
from libs.common.resources.identity import Token, User
from libs.common.store.base import Store
from libs.common.store.objects import Objects, modify

FLUSH_EVERY_S = 30.0


class LastActivities:
    """Holds the newest use per user until it is written; bounded by the number of users. `grain`: a user is written no more often."""

    def __init__(
        self, store: Store, users: Objects[User], now: Callable[[], datetime], grain: Callable[[], timedelta]
    ) -> None:  # fmt: skip
        self._store = store
        self._users = users
        self._now = now
        self._grain = grain
        self._pending: dict[tuple[str, str], datetime] = {}

    def note(self, token: Token, at: datetime) -> None:
        """This token was used then."""
        user = self._users.get(token.spec.user)
        if user is not None and user.uid == token.spec.user_uid:
            self.seen(user, at)

    def seen(self, user: User, at: datetime) -> None:
        """This user was active then."""
        if not self._is_fresh(user, at):
            key = (user.name, user.uid)
            self._pending[key] = max(at, self._pending.get(key, at))

    async def run(self) -> None:
        """Write what is pending, for ever."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write all that is pending now; what cannot be written is kept for the next time, unless the user is gone."""
        pending, self._pending = self._pending, {}
        for (name, uid), at in pending.items():
            try:
                await modify(self._store, User, name, self._setter(uid, at), now=self._now)
            except errors.NotFound:
                continue
            except errors.HerdsmanError as exc:
                log.get("identity").warning("last_activity_not_written", user=name, error=exc.message)
                self._pending.setdefault((name, uid), at)

    def _setter(self, uid: str, at: datetime) -> Callable[[User], bool]:
        def mutate(user: User) -> bool:
            if user.uid != uid or self._is_fresh(user, at):
                return False
            user.status.last_activity_time = at
            return True

        return mutate

    def _is_fresh(self, user: User, at: datetime) -> bool:
        written = user.status.last_activity_time
        return written is not None and at - written < self._grain()
