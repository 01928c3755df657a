"""Takes users who are gone out of the hub's groups. Keys are group names. Tidiness, not safety: who is gone is no member, nor is a later one of the name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.observe import log
from libs.common.reconcile import DONE, Outcome
from libs.common.resources.identity import Group, User
from libs.common.store.base import Store
from libs.common.store.objects import Objects, modify, read

if TYPE_CHECKING:
    from libs.common.store.informer import Change


class GroupMembers:
    """Asks the store itself who is gone, because a copy may be behind."""

    def __init__(self, store: Store, groups: Objects[Group], users: Objects[User], now: Callable[[], datetime]) -> None:
        self._store = store
        self._groups = groups
        self._users = users
        self._now = now

    async def reconcile(self, name: str) -> Outcome:
        group = self._groups.get(name)
        if group is None or group.deleting:
            return DONE
        gone = {m: uid for m, uid in group.private.uids.items() if await self._is_gone(m, uid)}
        if not gone:
            return DONE

        def mutate(current: Group) -> bool:
            left = {m: uid for m, uid in current.private.uids.items() if gone.get(m) != uid}
            if current.uid != group.uid or left == current.private.uids:
                return False
            current.spec.members = [m for m in current.spec.members if m in left]
            current.private.uids = left
            return True

        await modify(self._store, Group, name, mutate, now=self._now)
        log.get("identity").info("group_members_removed", group=name, reason="user_gone", count=len(gone))
        return DONE

    async def _is_gone(self, member: str, uid: str) -> bool:
        known = self._users.get(member)
        if known is not None and known.uid == uid:
            return False
        try:
            return (await read(self._store, User, member)).uid != uid
        except errors.NotFound:
            return True


def keys_of_member(groups: Objects[Group]) -> Callable[[Change], Iterable[str]]:
    """The groups that name a user who came or went; another of that name may have come meanwhile."""

    def keys(change: Change) -> Iterable[str]:
        if change.before is not None and change.after is not None:
            return ()
        member = change.key.partition(".")[2]
        return [group.name for group in groups.all() if member in group.private.uids]

    return keys
