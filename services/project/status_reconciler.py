"""Writes the status of projects. Keys are project names; of replicas that all know the same, one writes and the others find it written.

What a cluster did with a project is written at once, what is used at most every ten seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.contracts.messages import NamespaceObservation
from libs.common.reconcile import DONE, After, Outcome
from libs.common.resources import codec
from libs.common.resources.clusters import Cluster
from libs.common.resources.projects import Project, ProjectStatus
from libs.common.store.base import Entry, Store
from libs.common.store.objects import Objects, modify
from services.project.claims import claim_key, decode_claim
from services.project.observed import Observed
from services.project.status import DRIFTED, render_status

if TYPE_CHECKING:
    from libs.common.store.informer import Change, Informer

USE_EVERY_S = 10.0
LOOK_AGAIN_S = 300.0
"""How late it may be told that a drift is over."""


class StatusReconciler:
    def __init__(
        self, store: Store, projects: Objects[Project], clusters: Objects[Cluster], observed: Observed,
        now: Callable[[], datetime], monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        self._store = store
        self._projects = projects
        self._clusters = clusters
        self._observed = observed
        self._now = now
        self._monotonic = monotonic
        self._written: dict[str, float] = {}

    async def reconcile(self, name: str) -> Outcome:
        project = self._projects.get(name)
        if project is None:
            self._written.pop(name, None)
            return DONE
        wanted = self._render(project)
        drifted = wanted.condition(DRIFTED)
        done = After(LOOK_AGAIN_S) if drifted is not None and drifted.status == "True" else DONE
        if wanted == project.status:
            return done
        left = self._written.get(name, -USE_EVERY_S) + USE_EVERY_S - self._monotonic()
        if left > 0 and _without_use(wanted) == _without_use(project.status):
            return After(left)
        self._written[name] = self._monotonic()

        def mutate(current: Project) -> bool:
            status = self._render(current)
            if current.uid != project.uid or status == current.status:
                return False
            current.status = status
            return True

        try:
            await modify(self._store, Project, name, mutate, now=self._now)
        except errors.NotFound:
            return DONE
        return done

    def _render(self, project: Project) -> ProjectStatus:
        names = {n.cluster for n in project.spec.namespaces}
        clusters = {name: c for name in names if (c := self._clusters.get(name)) is not None}

        def look(cluster: str, namespace: str) -> NamespaceObservation | None:
            found = clusters.get(cluster)
            return self._observed.get(found.uid, namespace) if found is not None else None

        def is_absent(cluster: str, namespace: str) -> bool:
            found = clusters.get(cluster)
            return found is not None and self._observed.is_absent(found.uid, namespace)

        return render_status(project, clusters, look, is_absent, self._now())


def _without_use(status: ProjectStatus) -> ProjectStatus:
    bare = status.model_copy(deep=True)
    bare.used = {}
    for namespace in bare.namespaces:
        namespace.used = {}
    return bare


def keys_of_applied(projects: Objects[Project]) -> Callable[[Change], Iterable[str]]:
    """The projects in a cluster of which something may have changed that a status tells; heartbeats are nothing."""

    def keys(change: Change) -> Iterable[str]:
        name = change.key.partition(".")[2]
        facts = [_facts(e) if e is not None else None for e in (change.before, change.after)]
        if facts[0] == facts[1]:
            return ()
        return [p.name for p in projects.all() if any(n.cluster == name for n in p.spec.namespaces)]

    return keys


def keys_of_seen(claims: Informer, cluster: str, namespaces: Iterable[str]) -> set[str]:
    """The projects that have one of these namespaces."""
    entries = (claims.get(claim_key((cluster, name))) for name in namespaces)
    return {decode_claim(entry)[0] for entry in entries if entry is not None}


def _facts(entry: Entry) -> object:
    cluster = codec.decode(Cluster, entry.value, entry.revision)
    connected = cluster.status.condition("Connected")
    parts = [(p.name, p.hash, p.error, p.repaired_at) for p in cluster.status.applied]
    return cluster.uid, connected.status if connected else "", parts, cluster.status.behind
