"""What is special about writing Groups: members are remembered by uid, and nobody lets somebody into more than they hold themselves."""

from __future__ import annotations

import asyncio

from libs.common import errors
from libs.common.access.bindings import BindingIndex
from libs.common.access.emergencies import find_lacking_in_emergencies
from libs.common.access.lasting import find_lacking_of
from libs.common.access.principal import local_group_principal
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.identity import Group, User
from libs.common.resources.requests import AccessPolicy
from libs.common.store.base import Store
from libs.common.store.objects import Objects, read

_TOLD = 5


class GroupStrategy(Strategy[Group]):
    """Taking somebody out needs no more than the right to update the group; so does a group that no role is bound to."""

    model = Group
    name_is_label = True

    def __init__(self, store: Store, bindings: BindingIndex, policies: Objects[AccessPolicy]) -> None:
        self._store = store
        self._bindings = bindings
        self._policies = policies

    async def prepare(self, ctx: WriteContext, old: Group | None, new: Group) -> Group:
        """Names become uids when somebody comes in, and stay the same uids until that name is taken out."""
        new.status.principal_id = local_group_principal(new.uid)
        new.spec.members = list(dict.fromkeys(new.spec.members))
        before = old.private.uids if old is not None else {}
        added = [name for name in new.spec.members if name not in before]
        found = dict(zip(added, await asyncio.gather(*(self._uid(ctx, name) for name in added)), strict=True))
        missing = [name for name, uid in found.items() if not uid]
        if missing:
            causes = [
                errors.Cause(f"spec.members[{new.spec.members.index(name)}]", f'Not found: "{name}"', "FieldValueNotFound")
                for name in missing[:_TOLD]
            ]  # fmt: skip
            raise validate.invalid(Group, new.name, causes)
        uids = {name: before.get(name) or found[name] for name in new.spec.members}
        new.private = new.private.model_copy(update={"uids": uids})
        return new

    async def admit(self, ctx: WriteContext, old: Group | None, new: Group) -> None:
        if ctx.subresource:
            raise errors.Denied("the status of a group is written by the hub alone", kind="Group", name=new.name)
        before = old.private.uids.items() if old is not None else set()
        if not new.private.uids.items() - before:
            return
        lacking = find_lacking_of(
            ctx.grants, ctx.principal, new.status.principal_id, self._bindings, ctx.now
        ) + find_lacking_in_emergencies(
            ctx.grants, ctx.principal, [new.status.principal_id], self._policies.all(), self._bindings
        )  # fmt: skip
        if lacking:
            more = f" and {len(lacking) - _TOLD} more" if len(lacking) > _TOLD else ""
            raise errors.Denied(
                f'cannot let anybody into the group "{new.name}": it has rights that you lack, or hold for a shorter time: '
                f"{'; '.join(lacking[:_TOLD])}{more}",
                kind="Group", name=new.name,
            )  # fmt: skip

    async def _uid(self, ctx: WriteContext, name: str) -> str:
        """Of the user of that name; "" = there is none. One who was made a moment ago is in the store before the snapshot has it."""
        fact = ctx.grants.users.get(name)
        if fact is not None:
            return fact.uid
        try:
            return (await read(self._store, User, name)).uid
        except errors.NotFound:
            return ""
