"""The service's read side: clusters by name and by uid, from the informer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from libs.common.access.roles import EffectiveRole
from libs.common.resources.clusters import Cluster
from libs.common.resources.registry import BY_MODEL
from libs.common.store.informer import Change, Informer
from libs.common.store.objects import Objects


class RoleSnapshot(Protocol):
    @property
    def roles(self) -> Mapping[str, EffectiveRole]: ...


class HasRoles(Protocol):
    """The current role templates, resolved; `libs.common.access.live.LiveGrants` is one."""

    @property
    def current(self) -> RoleSnapshot: ...


class Clusters:
    """All clusters, and which name a uid has now."""

    def __init__(self, informer: Informer) -> None:
        self._objects = Objects(informer, Cluster)
        self._prefix = BY_MODEL[Cluster].key("")
        self._names: dict[str, str] = {}
        self._uids: dict[str, str] = {}
        self._end = informer.subscribe(self._follow, replay=True)

    def get(self, name: str) -> Cluster | None:
        """A copy that the caller may change."""
        found = self._objects.get(name)
        return None if found is None else found.model_copy(deep=True)

    def by_uid(self, uid: str) -> Cluster | None:
        """The living cluster with this uid; shared, not to be changed."""
        name = self._names.get(uid)
        found = None if name is None else self._objects.get(name)
        return found if found is not None and found.uid == uid else None

    def name_of(self, uid: str) -> str | None:
        return self._names.get(uid)

    def names(self) -> list[str]:
        return self._objects.names()

    def close(self) -> None:
        self._end()
        self._objects.close()

    def _follow(self, change: Change) -> None:
        if not change.key.startswith(self._prefix):
            return
        name = change.key.removeprefix(self._prefix)
        uid = ""
        if change.after is not None:
            found = self._objects.get(name)
            uid = found.uid if found is not None else ""
        before = self._uids.pop(name, "")
        if before and before != uid:
            self._names.pop(before, None)
        if uid:
            self._names[uid] = name
            self._uids[name] = uid
