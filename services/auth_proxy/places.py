"""Which namespaces the living projects have in which cluster, followed from the projects themselves.

The same answer as the one by which `cluster_controller` binds roles: an entry that came with an earlier cluster of the name counts for
nothing, and of two projects that name one namespace the older has it. What the project asked for and somebody else made is not the
project's (`ObservedNamespace.foreign`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from libs.common import errors
from libs.common.resources import codec
from libs.common.resources.projects import Project
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Entry
from libs.common.store.informer import Change, Informer

PROJECT_UNREADABLE = "project_unreadable"
log = structlog.get_logger(component="places")
Place = tuple[str, str]
"""Name of a cluster and of a namespace."""


@dataclass(frozen=True, slots=True)
class _Places:
    """One project's. `namespaces`: name of a cluster → namespace → the uid of the cluster that it came with, "" = whichever has the name."""

    uid: str
    age: tuple[str, str]
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class Places:
    """`version` is another object after each change that counts, of which `on_change` is told; what a project's namespaces use, written all the
    time, is none."""

    def __init__(self, informer: Informer) -> None:
        self.version = object()
        self.on_change: list[Callable[[], None]] = []
        self._prefix = BY_MODEL[Project].key("")
        self._projects: dict[str, _Places] = {}
        self._named: dict[Place, set[str]] = {}
        informer.subscribe(self._changed, replay=True)

    def find(self, project: str, project_uid: str, cluster: str, cluster_uid: str) -> set[str]:
        """Names of the namespaces that the project with this uid has in the cluster with that uid."""
        places = self._projects.get(project)
        if places is None or places.uid != project_uid:
            return set()
        return {
            name
            for name, came_with in places.namespaces.get(cluster, {}).items()
            if came_with in ("", cluster_uid) and self._is_first((cluster, name), project, cluster_uid)
        }

    def _is_first(self, place: Place, project: str, cluster_uid: str) -> bool:
        """The oldest of those whose entry counts in this cluster. The project's own does."""
        named, (cluster, name) = self._named[place], place
        if len(named) == 1:
            return True
        counting = (p for p in named if self._projects[p].namespaces[cluster][name] in ("", cluster_uid))
        return min(counting, key=lambda p: self._projects[p].age) == project

    def _changed(self, change: Change) -> None:
        if not change.key.startswith(self._prefix):
            return
        name = change.key.removeprefix(self._prefix)
        before, after = self._projects.get(name), self._read(change.after)
        if before == after:
            return
        for place in _places_of(before):
            self._named[place].discard(name)
            if not self._named[place]:
                del self._named[place]
        self._projects.pop(name, None)
        if after is not None:
            self._projects[name] = after
        for place in _places_of(after):
            self._named.setdefault(place, set()).add(name)
        self.version = object()
        for told in self.on_change:
            told()

    def _read(self, entry: Entry | None) -> _Places | None:
        if entry is None:
            return None
        try:
            project = codec.decode(Project, entry.value, entry.revision)
        except (errors.HerdsmanError, ValueError, KeyError) as exc:
            # What can't be read has no namespace to show.
            log.error(PROJECT_UNREADABLE, name=entry.key.removeprefix(self._prefix), error=str(exc))
            return None
        return None if project.deleting else _read_places(project)


def _read_places(project: Project) -> _Places:
    foreign = {(n.cluster, n.namespace) for n in project.status.namespaces if n.foreign}
    namespaces: dict[str, dict[str, str]] = {}
    for entry in project.spec.namespaces:
        if (entry.cluster, entry.namespace) not in foreign:
            namespaces.setdefault(entry.cluster, {})[entry.namespace] = entry.cluster_uid
    created = project.metadata.creation_timestamp
    return _Places(project.uid, (created.isoformat() if created else "", project.uid), namespaces)


def _places_of(places: _Places | None) -> list[Place]:
    return [] if places is None else [(c, n) for c, names in places.namespaces.items() for n in names]
