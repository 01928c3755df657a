"""What is held where: the same as in `held`, found by the place and not by the holder. Pure.

A decision is about one cluster or project, and its caller has a handful of ids. What one holder has lies all over the memory, so that
with many people most of a decision's time was waiting for it; what is held in one place lies together. `live` keeps one index current.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from libs.common.access.held import NOTHING, ClusterRole, Held, ProjectRole, SelectedRole

V = TypeVar("V")


class Standing(NamedTuple):
    """What somebody holds of a cluster: roles bound there, and the living projects with namespaces there that bindings name."""

    roles: tuple[ClusterRole, ...] = ()
    projects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Places:
    """One moment's view. The keys within are principal ids; who is not in it holds nothing there."""

    everywhere: Mapping[str, frozenset[str]] = field(default_factory=dict)
    selected: Mapping[str, frozenset[SelectedRole]] = field(default_factory=dict)
    clusters: Mapping[str, Mapping[str, Standing]] = field(default_factory=dict)
    projects: Mapping[str, Mapping[str, tuple[ProjectRole, ...]]] = field(default_factory=dict)


class PlaceIndex:
    """All that is held, by place. A change costs what it touches, and the next view once the holders in each place that was touched."""

    def __init__(self) -> None:
        self._everywhere: Shared[frozenset[str]] = Shared()
        self._selected: Shared[frozenset[SelectedRole]] = Shared()
        self._clusters: Nested[Standing] = Nested()
        self._projects: Nested[tuple[ProjectRole, ...]] = Nested()
        self._clusters_of: dict[str, frozenset[str]] = {}

    def put(self, holder: str, before: Held, after: Held) -> None:
        """What a principal id holds now, and what it held when it was last put."""
        if before.everywhere != after.everywhere:
            self._everywhere.put(holder, after.everywhere or None)
        if before.selected != after.selected:
            self._selected.put(holder, after.selected or None)
        for cluster in before.clusters.keys() | after.clusters.keys():
            bound = after.clusters.get(cluster, ())
            if bound != before.clusters.get(cluster, ()):
                self._stand(cluster, holder, Standing(bound, self._standing(cluster, holder).projects))
        for project in before.projects.keys() | after.projects.keys():
            was, now = before.projects.get(project), after.projects.get(project)
            if was == now:
                continue
            self._projects.put(project, holder, now)
            if was is None or now is None:
                for cluster in self._clusters_of.get(project, ()):
                    self._reach_by(project, cluster, holder, reached=now is not None)

    def put_project(self, project: str, clusters: frozenset[str]) -> None:
        """The clusters of a living project; none of one that is gone."""
        before = self._clusters_of.pop(project, frozenset())
        if clusters:
            self._clusters_of[project] = clusters
        for cluster in before ^ clusters:
            for holder in self._projects.within(project):
                self._reach_by(project, cluster, holder, reached=cluster in clusters)

    def view(self) -> Places:
        """As it is now; shares with the last view what did not change."""
        return Places(self._everywhere.copy(), self._selected.copy(), self._clusters.copy(), self._projects.copy())

    def _reach_by(self, project: str, cluster: str, holder: str, *, reached: bool) -> None:
        roles, projects = self._standing(cluster, holder)
        others = tuple(name for name in projects if name != project)
        self._stand(cluster, holder, Standing(roles, (*others, project) if reached else others))

    def _standing(self, cluster: str, holder: str) -> Standing:
        return self._clusters.within(cluster).get(holder, _NOWHERE)

    def _stand(self, cluster: str, holder: str, standing: Standing) -> None:
        self._clusters.put(cluster, holder, standing if standing != _NOWHERE else None)


def find_places(held: Mapping[str, Held], projects: Mapping[str, frozenset[str]]) -> Places:
    """The view of all that is held, with the clusters of each living project."""
    index = PlaceIndex()
    for project, clusters in projects.items():
        index.put_project(project, clusters)
    for holder, after in held.items():
        index.put(holder, NOTHING, after)
    return index.view()


class Shared(Generic[V]):
    """A mapping, and the copy of it for views: the same one until something changes."""

    def __init__(self) -> None:
        self._all: dict[str, V] = {}
        self._copy: Mapping[str, V] | None = None

    def get(self, key: str) -> V | None:
        return self._all.get(key)

    def put(self, key: str, value: V | None) -> None:
        """None = there is none."""
        if value is None:
            self._all.pop(key, None)
        else:
            self._all[key] = value
        self._copy = None

    def copy(self) -> Mapping[str, V]:
        if self._copy is None:
            self._copy = dict(self._all)
        return self._copy


class Nested(Generic[V]):
    """A mapping for each place. One that a view has is never changed: the first change after a view is in a copy."""

    def __init__(self) -> None:
        self._places: Shared[Mapping[str, V]] = Shared()
        self._own: dict[str, dict[str, V]] = {}
        """Those that no view has yet."""

    def within(self, place: str) -> Mapping[str, V]:
        return self._places.get(place) or {}

    def put(self, place: str, holder: str, value: V | None) -> None:
        """None = nothing is held there."""
        own = self._own.get(place)
        if own is None:
            own = self._own[place] = dict(self.within(place))
        if value is None:
            own.pop(holder, None)
        else:
            own[holder] = value
        self._places.put(place, own or None)

    def copy(self) -> Mapping[str, Mapping[str, V]]:
        self._own.clear()
        return self._places.copy()


_NOWHERE = Standing()
