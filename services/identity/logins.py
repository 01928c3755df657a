"""`status.lastLogin` of users, with it `status.lastActivityTime`, and from where they signed in, written in batches: a sign-in never waits for this, and many
sign-ins of one person are one write. A place that is new is written at once: the other replicas must know it, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from libs.common import errors
from libs.common.observe import log
from libs.common.resources.identity import SignInPlace, User
from libs.common.store.base import Store
from libs.common.store.objects import modify
from services.identity.known_places import add_places

FLUSH_EVERY_S = 30.0


class LastLogins:
    """Holds the newest sign-in per user until it is written; bounded by the number of users. A crash loses half a minute."""

    def __init__(self, store: Store, now: Callable[[], datetime], *, every_s: float = FLUSH_EVERY_S) -> None:
        self._store = store
        self._now = now
        self._every_s = every_s
        self._pending: dict[str, tuple[str, datetime]] = {}
        self._places: dict[str, list[SignInPlace]] = {}
        self._soon = asyncio.Event()
        self._log = log.get("identity")

    def note(self, user: User, place: SignInPlace | None = None, *, new: bool = False) -> None:
        """This user has signed in now; `place`: from there, with a password; `new`: for the first time in a while."""
        if new:
            self._soon.set()
        self._pending[user.name] = (user.uid, self._now())
        if place is not None:
            self._places[user.name] = add_places(self._places.get(user.name, []), [place], self._now())

    async def run(self) -> None:
        """Write what is pending, for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._soon.wait()
            self._soon.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write all that is pending now; what cannot be written is kept for the next time, unless the user is gone."""
        pending, self._pending = self._pending, {}
        places, self._places = self._places, {}
        for name, (uid, moment) in pending.items():
            try:
                await modify(self._store, User, name, _setter(uid, moment, places.get(name, [])), now=self._now)
            except errors.NotFound:
                continue
            except errors.HerdsmanError as exc:
                self._log.warning("last_login_not_written", user=name, error=exc.message)
                self._pending.setdefault(name, (uid, moment))
                if name in places:
                    self._places[name] = add_places(places[name], self._places.get(name, []), self._now())


def _setter(uid: str, moment: datetime, new: list[SignInPlace]) -> Callable[[User], bool]:
    def mutate(user: User) -> bool:
        if user.uid != uid:
            return False
        places = add_places(user.private.places, new, moment) if new else user.private.places
        later = user.status.last_login is None or user.status.last_login < moment
        if not later and places == user.private.places:
            return False
        user.private.places = places
        if later:
            user.status.last_login = moment
            known = user.status.last_activity_time
            user.status.last_activity_time = moment if known is None else max(known, moment)
        return True

    return mutate
