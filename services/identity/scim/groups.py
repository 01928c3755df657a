"""Groups: a record for each, and the membership, which is written at every member's user.

A call that was interrupted is repeated by the client, and then does what was left: records are written before members when somebody comes in, members before
the record when a group goes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scim2_models import (
    Context,
    InvalidValueException,
    Meta,
    NotFoundException,
    Reference,
    TooManyException,
    UniquenessException,
)

from libs.common import errors
from libs.common.observe import log
from libs.common.store.base import Put, Store
from services.identity.scim.directory import Directory, GroupRecord, InGroup, decode_group, renamed
from services.identity.scim.model import LENIENT, Group, Member
from services.identity.scim.requests import (
    MAX_MEMBERS,
    Members,
    is_hidden,
    parse_group,
    parse_patch,
    parse_query,
    principal_of_group,
)
from services.identity.scim.users import Ask, Users, reached

AT_ONCE = 16
"""Members that are written side by side."""
_SHOWN = 50


@dataclass(slots=True)
class Groups:
    store: Store
    users: Users
    directory: Directory
    now: Callable[[], datetime]

    async def create(self, ask: Ask, body: dict[str, Any]) -> Group:
        """Raises UniquenessException when bindings could not tell it from another group of this provider."""
        given, members = parse_group(body, Context.RESOURCE_CREATION_REQUEST)
        wanted = self._known(ask, members.apply(set()))
        now = self.now()
        record = GroupRecord(
            ask.name, secrets.token_hex(12), principal_of_group(given, ask.name), given.display_name or "", given.external_id or "", now, now,
        )  # fmt: skip
        try:
            revision = await self.store.create(record.key, record.encode())
        except errors.AlreadyExists as exc:
            raise UniquenessException(detail=f'there is a group "{record.principal_id}"') from exc
        self._log("scim_group_created", ask, record)
        await reached(self.directory.groups, revision)
        await self._write_members(ask, record, {}, wanted)
        return self.render(ask, record)

    async def get(self, ask: Ask) -> Group:
        return self.render(ask, self._find(ask))

    async def find(self, ask: Ask) -> tuple[int, int, list[Group]]:
        """As for users, oldest first. A page ends early when its groups have many members."""
        query = parse_query(Group, ask.call.query)
        records = self.directory.groups_of(ask.name)
        if query.attribute == "displayName":
            records = [r for r in records if r.display_name.casefold() == query.value.casefold()]
        elif query.attribute:
            records = [r for r in records if query.value == (r.id if query.attribute == "id" else r.external_id)]
        page: list[Group] = []
        room = MAX_MEMBERS
        for record in records[query.start - 1 : query.start - 1 + query.count]:
            group = self.render(ask, record)
            room -= len(group.members or ())
            if page and room < 0:
                break
            page.append(group)
        return len(records), query.start, page

    async def replace(self, ask: Ask, body: dict[str, Any]) -> Group:
        given, members = parse_group(body, Context.RESOURCE_REPLACEMENT_REQUEST)
        return await self._change(ask, lambda _before: given, members)

    async def patch(self, ask: Ask, body: dict[str, Any]) -> Group:
        patch, members = parse_patch(Group, body)

        def change(before: Group) -> Group:
            if patch is not None:
                patch.patch(before, LENIENT)
            return before

        return await self._change(ask, change, members)

    async def delete(self, ask: Ask) -> None:
        """Its members lose it first, then it is gone."""
        record = self._find(ask)
        await self._write_members(ask, record, self.directory.members(ask.name, record.id), set())
        stored = await self._stored(record)
        revision = await self.store.delete(stored.key, stored.encode(), stored.revision)
        self._log("scim_group_deleted", ask, record)
        await reached(self.directory.groups, revision)

    def render(self, ask: Ask, record: GroupRecord) -> Group:
        meta = Meta(
            resource_type="Group", created=record.created, last_modified=record.modified, location=ask.address("Groups", record.id)
        )  # fmt: skip
        hidden = is_hidden("members", ask.call.query)
        members = {} if hidden else self.directory.members(record.provider, record.id)
        return Group(
            id=record.id, external_id=record.external_id or None, display_name=record.display_name, meta=meta,
            members=[Member(value=uid, ref=Reference(ask.address("Users", uid))) for uid in sorted(members)] or None,
        )  # fmt: skip

    # ── inside ──

    async def _change(self, ask: Ask, change: Callable[[Group], Group], members: Members) -> Group:
        record = self._find(ask)
        stored = await self._stored(record)
        before = Group(id=record.id, external_id=stored.external_id or None, display_name=stored.display_name)
        after = change(before)
        inside = self.directory.members(ask.name, record.id)
        wanted = members.apply(set(inside))
        self._known(ask, wanted - set(inside))
        if len(wanted) > MAX_MEMBERS:
            raise TooManyException(detail=f"a group has at most {MAX_MEMBERS} members")
        fresh = renamed(
            stored, principal_of_group(after, ask.name), after.display_name or "", after.external_id or "", self.now()
        )
        await reached(self.directory.groups, await self._write_record(stored, fresh))
        if (fresh.principal_id, fresh.display_name) != (stored.principal_id, stored.display_name):
            self._log("scim_group_renamed", ask, fresh, before=stored.principal_id)
        await self._write_members(ask, fresh, inside, wanted)
        return self.render(ask, fresh)

    async def _write_record(self, stored: GroupRecord, fresh: GroupRecord) -> int:
        if fresh.key == stored.key:
            return await self.store.update(fresh.key, fresh.encode(), stored.revision)
        try:
            return await self.store.batch(
                [Put(stored.key, stored.encode(), stored.revision, deleted=True), Put(fresh.key, fresh.encode(), 0)]
            )
        except errors.Conflict as exc:
            raise UniquenessException(
                detail=f'there is a group "{fresh.principal_id}", or this one changed just now'
            ) from exc

    async def _write_members(self, ask: Ask, record: GroupRecord, inside: dict[str, InGroup], wanted: set[str]) -> None:
        """Make it so at every user that says something else. A member that is gone meanwhile is one no more."""
        leaving = [(member.user, uid, False) for uid, member in inside.items() if uid not in wanted]
        staying = (uid for uid in wanted if uid not in inside or inside[uid].principal_id != record.principal_id)
        changes = [*leaving, *((self.directory.user_name(ask.name, uid), uid, True) for uid in sorted(staying))]
        revision = 0
        for start in range(0, len(changes), AT_ONCE):
            part = changes[start : start + AT_ONCE]
            written = await asyncio.gather(*(self._put_in(ask, name, uid, record, inside=to) for name, uid, to in part))
            revision = max(revision, *written)
        if changes:
            gained = [name for name, uid, to in changes if to and uid not in inside]
            lost = [name for name, _, to in changes if not to]
            self._log(
                "scim_members_changed", ask, record, gained=gained[:_SHOWN], lost=lost[:_SHOWN], gained_count=len(gained), lost_count=len(lost)
            )  # fmt: skip
            if lost:
                self.users.attempts.note(
                    "refresh-groups", "groups_lost", actor=ask.by, provider=ask.name, account=lost[0] if len(lost) == 1 else "",
                    note=f"{record.principal_id} lost {len(lost)} members: {', '.join(lost[:20])}",
                )  # fmt: skip
            await reached(self.directory.users, revision)

    async def _put_in(self, ask: Ask, name: str, uid: str, record: GroupRecord, *, inside: bool) -> int:
        try:
            return await self.users.put_in(ask, name, uid, record, inside=inside) if name else 0
        except errors.NotFound:
            return 0

    def _find(self, ask: Ask) -> GroupRecord:
        record = self.directory.group(ask.name, ask.call.id)
        if record is None:
            raise NotFoundException(detail="there is no group of this id")
        return record

    async def _stored(self, record: GroupRecord) -> GroupRecord:
        """The record as it is now. Raises NotFoundException when it was renamed or deleted just now."""
        try:
            return decode_group(await self.store.get(record.key))
        except errors.NotFound as exc:
            raise NotFoundException(detail="there is no group of this id") from exc

    def _known(self, ask: Ask, uids: Iterable[str]) -> set[str]:
        """The ids, if each is of a user that was pushed. Raises InvalidValueException."""
        wanted = set(uids)
        for uid in wanted:
            if not self.directory.user_name(ask.name, uid):
                raise InvalidValueException(
                    detail=f'no user of id "{uid[:64]}" was pushed here: push users before groups'
                )
        return wanted

    @staticmethod
    def _log(event: str, ask: Ask, record: GroupRecord, **facts: Any) -> None:
        log.get("identity").info(event, group=record.principal_id, provider=ask.name, changed_by=ask.by, **facts)
