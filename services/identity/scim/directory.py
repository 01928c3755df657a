"""What was pushed, by informer: users by their id and group, and the records of groups, which are private to identity.

Group records lie in the bucket under `scimgroups.<provider>.<hash of the principal id>`, so that no two groups of a provider are called the same by
bindings. Who is in a group is written at the users. Another replica's write is seen a moment later than it was answered.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from libs.common.resources import codec
from libs.common.resources.identity import User
from libs.common.store.record import pack_record, unpack_record

if TYPE_CHECKING:
    from libs.common.store.base import Entry
    from libs.common.store.informer import Change, Informer

GROUPS = "scimgroups"


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One pushed group. `revision` 0: not written yet."""

    provider: str
    id: str
    principal_id: str
    display_name: str
    external_id: str
    created: datetime
    modified: datetime
    revision: int = 0

    @property
    def key(self) -> str:
        return f"{GROUPS}.{self.provider}.{hashlib.sha256(self.principal_id.encode('utf-8')).hexdigest()[:40]}"

    def encode(self) -> bytes:
        document = {
            "provider": self.provider, "id": self.id, "principal": self.principal_id, "displayName": self.display_name,
            "externalId": self.external_id, "created": self.created.isoformat(), "modified": self.modified.isoformat(),
        }  # fmt: skip
        return pack_record(document)


def decode_group(entry: Entry) -> GroupRecord:
    stored = unpack_record(entry)
    return GroupRecord(
        stored["provider"], stored["id"], stored["principal"], stored["displayName"], stored["externalId"],
        datetime.fromisoformat(stored["created"]), datetime.fromisoformat(stored["modified"]), entry.revision,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Pushed:
    """A user as the index has it: by provider, the groups with their principal ids."""

    uid: str
    groups: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class InGroup:
    """A member. `principal_id` is what the group was called when the member's user was written."""

    uid: str
    user: str
    principal_id: str


class Directory:
    """Follows users and group records; `wait` for one's own writes."""

    def __init__(self, users: Informer, groups: Informer) -> None:
        self.users = users
        self.groups = groups
        self._users: dict[str, _Pushed] = {}
        self._by_id: dict[str, dict[str, str]] = {}
        self._members: dict[tuple[str, str], dict[str, InGroup]] = {}
        self._records: dict[str, dict[str, GroupRecord]] = {}
        self._keys: dict[str, GroupRecord] = {}
        users.subscribe(self._user_changed)
        groups.subscribe(self._group_changed)

    def user_name(self, provider: str, uid: str) -> str:
        """Name of the hub's user that was pushed under this id; empty = none was."""
        return self._by_id.get(provider, {}).get(uid, "")

    def user_names(self, provider: str) -> list[str]:
        """Names of all users that were pushed, sorted."""
        return sorted(self._by_id.get(provider, {}).values())

    def group(self, provider: str, group_id: str) -> GroupRecord | None:
        return self._records.get(provider, {}).get(group_id)

    def groups_of(self, provider: str) -> list[GroupRecord]:
        """All groups that were pushed, by their age."""
        return sorted(self._records.get(provider, {}).values(), key=lambda record: (record.created, record.id))

    def members(self, provider: str, group_id: str) -> dict[str, InGroup]:
        """Who is in a group, by uid. A copy."""
        return dict(self._members.get((provider, group_id), {}))

    def _user_changed(self, change: Change) -> None:
        name = change.key.partition(".")[2]
        before = self._users.pop(name, None)
        for provider, groups in before.groups.items() if before is not None else ():
            assert before is not None
            self._by_id[provider].pop(before.uid, None)
            for group in groups:
                self._members[provider, group].pop(before.uid, None)
                if not self._members[provider, group]:
                    del self._members[provider, group]
        if change.after is None:
            return
        user = codec.decode(User, change.after.value, change.after.revision)
        if not user.private.pushed:
            return
        self._users[name] = _Pushed(user.uid, {p: account.groups for p, account in user.private.pushed.items()})
        for provider, account in user.private.pushed.items():
            self._by_id.setdefault(provider, {})[user.uid] = name
            for group, principal_id in account.groups.items():
                self._members.setdefault((provider, group), {})[user.uid] = InGroup(user.uid, name, principal_id)

    def _group_changed(self, change: Change) -> None:
        before = self._keys.pop(change.key, None)
        if before is not None and self._records[before.provider].get(before.id) == before:
            del self._records[before.provider][before.id]
        if change.after is None:
            return
        record = decode_group(change.after)
        self._keys[change.key] = record
        self._records.setdefault(record.provider, {})[record.id] = record


def renamed(record: GroupRecord, principal_id: str, display_name: str, external_id: str, now: datetime) -> GroupRecord:
    """The same group as it is called now."""
    return replace(
        record, principal_id=principal_id, display_name=display_name, external_id=external_id, modified=now, revision=0
    )
