"""Removes bindings that can never give anything again: expired a day ago, or of a cluster, project or user that is gone.

Keys are binding names. Tidiness, not safety: such bindings give nothing from the moment on, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from libs.common import errors
from libs.common.observe import log
from libs.common.reconcile import DONE, After, Outcome
from libs.common.resources import codec
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.identity import User
from libs.common.resources.meta import Resource
from libs.common.resources.projects import Project
from libs.common.resources.registry import BY_MODEL, field_at
from libs.common.store.base import Entry, Store
from libs.common.store.objects import Objects, encode_last, read

if TYPE_CHECKING:
    from libs.common.store.informer import Change, Informer

KEEP_EXPIRED_S = 86400.0
"""A day in which people still see what they had until when."""
LOOK_AGAIN_S = 3600.0


class BindingReconciler:
    """`stores` by bucket: the other services' are only read, and asked themselves, because a copy may be behind."""

    def __init__(
        self, store: Store, stores: Callable[[str], Store], bindings: Objects[RoleTemplateBinding], now: Callable[[], datetime]
    ) -> None:  # fmt: skip
        self._store = store
        self._stores = stores
        self._bindings = bindings
        self._now = now

    async def reconcile(self, name: str) -> Outcome:
        binding = self._bindings.get(name)
        if binding is None:
            return DONE
        why = await self._useless_because(binding)
        if why:
            await self._delete(name, binding.uid)
            log.get("authz").info("binding_removed", binding=name, reason=why)
            return DONE
        until = binding.spec.not_after
        if until is None:
            return DONE
        return After(min(LOOK_AGAIN_S, max(1.0, (until - self._now()).total_seconds() + KEEP_EXPIRED_S)))

    async def _useless_because(self, binding: RoleTemplateBinding) -> str:
        spec = binding.spec
        if spec.not_after is not None and (self._now() - spec.not_after).total_seconds() >= KEEP_EXPIRED_S:
            return "expired"
        if spec.scope.cluster and await self._is_gone(Cluster, spec.scope.cluster, spec.scope.cluster_uid or ""):
            return "cluster_gone"
        uid = spec.scope.project_uid or ""
        if spec.scope.project and await self._is_gone(
            Project, spec.scope.project, uid, None if uid else binding.metadata.creation_timestamp
        ):
            return "project_gone"
        uid = spec.principal.removeprefix("local:user:")
        if spec.user and uid != spec.principal and await self._is_gone(User, spec.user, uid):
            return "user_gone"
        return ""

    async def _is_gone(self, model: type[Resource], name: str, uid: str, since: datetime | None = None) -> bool:
        """Gone, or another one of that name: by uid, or made after the binding (`since`)."""
        try:
            found = await read(self._stores(BY_MODEL[model].bucket), model, name)
        except errors.NotFound:
            return True
        created = found.metadata.creation_timestamp
        return (bool(uid) and found.uid != uid) or (since is not None and created is not None and created > since)

    async def _delete(self, name: str, uid: str) -> None:
        try:
            stored = await read(self._store, RoleTemplateBinding, name)
            if stored.uid == uid:
                revision = int(stored.metadata.resource_version or 0)
                await self._store.delete(BY_MODEL[RoleTemplateBinding].key(name), encode_last(stored), revision)
        except errors.NotFound:
            return


def keys_of_binding(change: Change) -> Iterable[str]:
    """A binding that is new, or whose end moved; what its status says changes nothing."""
    if change.after is None:
        return ()
    same = change.before is not None and _facts(change.before) == _facts(change.after) is not None
    return () if same else (change.key.partition(".")[2],)


def _facts(entry: Entry) -> tuple[object, object] | None:
    """What a binding gives; None where it cannot be read, which is for `reconcile` to tell."""
    try:
        document = codec.decode_document(entry.value, entry.revision)
    except errors.Internal:
        return None
    return document["metadata"].get("uid"), document.get("spec")


class Naming:
    """Which bindings name which cluster, project or user, so that one that comes or goes costs a look at its own. Made before others follow."""

    _PATHS: ClassVar[Mapping[str, str]] = {
        "clusters": "spec.scope.cluster", "projects": "spec.scope.project", "users": "spec.user"
    }  # fmt: skip

    def __init__(self, bindings: Informer) -> None:
        self._named: dict[str, tuple[str, ...]] = {}
        self._by: dict[str, set[str]] = {}
        bindings.subscribe(self._follow, replay=True)

    def keys(self, change: Change) -> Iterable[str]:
        """All bindings that name an object which came or went; it may go and come again between two looks."""
        if change.before is not None and change.after is not None:
            return ()
        return tuple(self._by.get(change.key, ()))

    def _follow(self, change: Change) -> None:
        plural, _, name = change.key.partition(".")
        if plural != BY_MODEL[RoleTemplateBinding].plural:
            return
        for key in self._named.pop(name, ()):
            self._by[key].discard(name)
            if not self._by[key]:
                del self._by[key]
        if change.after is None:
            return
        document = codec.decode_document(change.after.value, change.after.revision)
        keys = tuple(f"{kind}.{named}" for kind, path in self._PATHS.items() if (named := field_at(document, path)))
        self._named[name] = keys
        for key in keys:
            self._by.setdefault(key, set()).add(name)
