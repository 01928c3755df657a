"""Which of the hub's own groups each user is in. Pure; `live` and the front door each keep one from an informer.

A member is a user by uid: who is made again under the same name is somebody else, and in none of the groups of the first.
"""

from __future__ import annotations

from collections.abc import Mapping

from libs.common.access.principal import local_group_principal
from libs.common.resources.identity import Group


class LocalGroups:
    """`by_uid` and `ids` are replaced as a whole, never changed: whoever was given one has a snapshot."""

    def __init__(self) -> None:
        self.by_uid: Mapping[str, tuple[str, ...]] = {}
        """User's uid → principal ids of the groups, sorted."""
        self.ids: frozenset[str] = frozenset()
        """Principal ids of all groups, those without members too."""
        self._members: dict[str, tuple[str, dict[str, str]]] = {}

    def put(self, name: str, group: Group | None) -> set[str]:
        """The group as it is now, None = gone. Returns the names of the users who came in or went out."""
        principal, before = self._members.pop(name, ("", {}))
        after: dict[str, str] = {}
        now = ""
        if group is not None and not group.deleting:
            now, after = local_group_principal(group.uid), members_of(group)
            self._members[name] = (now, after)
        if principal != now:
            self.ids = (self.ids - {principal}) | ({now} if now else set())
        elif before == after:
            return set()
        of = dict(self.by_uid)
        for uid in before.values():
            left = tuple(i for i in of.get(uid, ()) if i != principal)
            if left:
                of[uid] = left
            else:
                of.pop(uid, None)
        for uid in after.values():
            of[uid] = tuple(sorted({*of.get(uid, ()), now}))
        self.by_uid = of
        if principal != now:
            return {*before, *after}
        return {user for user, _ in before.items() ^ after.items()}

    def of(self, uid: str) -> tuple[str, ...]:
        """The principal ids of the groups that this user is in."""
        return self.by_uid.get(uid, ())


def members_of(group: Group) -> dict[str, str]:
    """Name → uid of those who count as members."""
    uids = group.private.uids
    return {name: uids[name] for name in group.spec.members if name in uids}
