"""The service's read side, from informers: clusters by name and by uid, and which projects have namespaces in a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import structlog

from libs.common import errors
from libs.common.access.roles import EffectiveRole
from libs.common.resources import codec
from libs.common.resources.clusters import Cluster
from libs.common.resources.projects import Project
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Entry
from libs.common.store.informer import Change, Informer
from libs.common.store.objects import Objects

PROJECT_UNREADABLE = "project_unreadable"
log = structlog.get_logger(__name__)


class RoleSnapshot(Protocol):
    @property
    def roles(self) -> Mapping[str, EffectiveRole]: ...

    @property
    def clusters(self) -> Mapping[str, str]:
        """Name of each living cluster → its uid."""


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

    def __len__(self) -> int:
        return len(self._uids)

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


class Projects:
    """The living projects by the clusters that they have namespaces in. One that cannot be read has none, and so gives nothing."""

    def __init__(self, informer: Informer) -> None:
        self._prefix = BY_MODEL[Project].key("")
        self._projects: dict[str, Project] = {}
        self._in: dict[str, dict[str, Project]] = {}
        self._end = informer.subscribe(self._follow, replay=True)

    def in_cluster(self, cluster: str) -> Iterable[Project]:
        """The projects with namespaces there, in no order; shared, not to be changed."""
        return self._in.get(cluster, {}).values()

    def touched(self, change: Change) -> Iterable[str]:
        """Names of the clusters that hold something else after this change of a project."""
        before, after = self._read(change.before), self._read(change.after)
        if before is not None and after is not None and before.uid == after.uid and before.spec == after.spec:
            return ()
        return _clusters_of(before) | _clusters_of(after)

    def close(self) -> None:
        self._end()

    def _follow(self, change: Change) -> None:
        if not change.key.startswith(self._prefix):
            return
        name = change.key.removeprefix(self._prefix)
        before, after = self._projects.pop(name, None), self._read(change.after)
        if before is not None and after is not None and before.uid == after.uid and before.spec == after.spec:
            after = before  # whoever remembers what was rendered from it may go on
        for cluster in _clusters_of(before):
            del self._in[cluster][name]
            if not self._in[cluster]:
                del self._in[cluster]
        if after is not None:
            self._projects[name] = after
        for cluster in _clusters_of(after):
            assert after is not None
            self._in.setdefault(cluster, {})[name] = after

    def _read(self, entry: Entry | None) -> Project | None:
        if entry is None:
            return None
        try:
            project = codec.decode(Project, entry.value, entry.revision)
        except (errors.HerdsmanError, ValueError) as exc:
            log.error(PROJECT_UNREADABLE, name=entry.key.removeprefix(self._prefix), error=str(exc))
            return None
        return None if project.deleting else project


def _clusters_of(project: Project | None) -> set[str]:
    return set() if project is None else {entry.cluster for entry in project.spec.namespaces}
