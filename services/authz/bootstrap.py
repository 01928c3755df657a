"""The first admin of a hub that never had one: two bindings for the user that identity made, once and never again.

Level-based: `reconcile` runs when a user comes, until the marker record says that the hub has, or had, an admin.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import uuid4

import msgpack

from libs.common import errors
from libs.common.access.principal import local_user_principal
from libs.common.observe import log
from libs.common.reconcile import DONE, Outcome
from libs.common.resources.access import BindingScope, RoleTemplateBinding, RoleTemplateBindingSpec
from libs.common.resources.identity import User
from libs.common.resources.meta import ObjectMeta, format_time
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Put, Store
from libs.common.store.objects import Objects, encode_unique
from services.authz.rules import ADMIN_ROLE

MARKER = "bootstrap.admin"
ROLES = (ADMIN_ROLE, "cluster-owner")
"""Both everywhere: the hub itself, and every cluster, so that the first admin can give any role on."""


class AdminBootstrap:
    def __init__(
        self, store: Store, users: Objects[User], bindings: Objects[RoleTemplateBinding], user: str, now: Callable[[], datetime]
    ) -> None:  # fmt: skip
        self._store = store
        self._users = users
        self._bindings = bindings
        self._user = user
        self._now = now

    async def reconcile(self, _key: str) -> Outcome:
        """Make the bindings if the marker is missing and the user is there."""
        if await self._is_marked():
            return DONE
        moment = self._now()
        if any(b.spec.role == ADMIN_ROLE and b.spec.scope.all for b in self._bindings.all()):
            await self._write([Put(MARKER, _marker("", moment), 0)])
            return DONE
        user = self._users.get(self._user)
        if user is None:
            return DONE  # the informer calls again when it comes
        made = [_binding(user, role, moment) for role in ROLES]
        writes = [Put(BY_MODEL[RoleTemplateBinding].key(b.name), encode_unique(b), 0) for b in made]
        if await self._write([Put(MARKER, _marker(user.name, moment), 0), *writes]):
            log.get("authz").info("bootstrap_admin_bound", user=user.name)
        return DONE

    async def _is_marked(self) -> bool:
        try:
            await self._store.get(MARKER)
        except errors.NotFound:
            return False
        return True

    async def _write(self, writes: list[Put]) -> bool:
        try:
            await self._store.batch(writes)
        except errors.Conflict:
            if await self._is_marked():
                return False  # another replica was first
            raise
        return True


def _binding(user: User, role: str, moment: datetime) -> RoleTemplateBinding:
    return RoleTemplateBinding(
        metadata=ObjectMeta(name=f"bootstrap-{user.name}-{role}", uid=str(uuid4()), creation_timestamp=moment, generation=1),
        spec=RoleTemplateBindingSpec(
            principal=user.status.principal_id or local_user_principal(user.uid), user=user.name, role=role,
            scope=BindingScope(all=True),
        ),
    )  # fmt: skip


def _marker(user: str, moment: datetime) -> bytes:
    """In the stored form of objects, with an operation id that differs between replicas."""
    packed: bytes = msgpack.packb({"v": 1, "op": uuid4().hex, "object": {"user": user, "at": format_time(moment)}})
    return packed
