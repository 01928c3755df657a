"""Keeps projects true: namespaces of deleted clusters leave, and of two projects with one namespace the older keeps it.

Keys are project names. That one namespace is in two projects comes from before there were claims alone; whoever has one since then gets
its claim here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.observe import log
from libs.common.reconcile import DONE, Outcome
from libs.common.resources.clusters import Cluster
from libs.common.resources.projects import Project, ProjectNamespace
from libs.common.store.base import Store
from libs.common.store.objects import Objects, modify, read
from services.project.claims import Claims
from services.project.rules import Key, key_of
from services.project.shares import fill_shares

if TYPE_CHECKING:
    from libs.common.store.informer import Change


class ProjectReconciler:
    def __init__(
        self, store: Store, clusters_store: Store, projects: Objects[Project], claims: Claims, is_claimed: Callable[[str], bool],
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._store = store
        self._clusters_store = clusters_store
        self._projects = projects
        self._claims = claims
        self._is_claimed = is_claimed
        self._now = now

    async def reconcile(self, name: str) -> Outcome:
        project = self._projects.get(name)
        if project is None:
            return DONE
        gone = await self._gone(project)
        lost = self._lost_to_older(project)
        if gone or lost:
            await self._take_out(name, project.uid, gone, lost)
        else:
            await self._claims.adopt(project, self._is_claimed)
        return DONE

    async def _gone(self, project: Project) -> set[tuple[Key, str]]:
        """Namespaces of clusters that are gone, also where another cluster has the name since, each with the uid of its cluster.

        Asks the owner's bucket itself: a copy that is behind must not empty a project.
        """
        uids: dict[str, str] = {}
        for cluster in {n.cluster for n in project.spec.namespaces}:
            try:
                uids[cluster] = (await read(self._clusters_store, Cluster, cluster)).uid
            except errors.NotFound:
                continue
        return {(key_of(n), n.cluster_uid) for n in project.spec.namespaces if not _is_of(n, uids.get(n.cluster, ""))}

    def _lost_to_older(self, project: Project) -> set[Key]:
        own = {key_of(n) for n in project.spec.namespaces}
        older = (p for p in self._projects.all() if p.name != project.name and _age(p) < _age(project))
        return {key_of(n) for other in older for n in other.spec.namespaces} & own

    async def _take_out(self, name: str, uid: str, gone: set[tuple[Key, str]], lost: set[Key]) -> None:
        taken: set[Key] = set()

        def mutate(project: Project) -> bool:
            taken.clear()
            kept = [
                n for n in project.spec.namespaces if (key_of(n), n.cluster_uid) not in gone and key_of(n) not in lost
            ]
            if project.uid != uid or len(kept) == len(project.spec.namespaces):
                return False
            taken.update(key_of(n) for n in project.spec.namespaces if n not in kept)
            before = project.model_copy(deep=True)
            project.spec.namespaces = kept
            fill_shares(before, project)
            return True

        try:
            project = await modify(self._store, Project, name, mutate, now=self._now)
        except errors.NotFound:
            return
        await self._claims.drop(project, taken)
        log.get("project").info(
            "namespaces_taken_out",
            project=name,
            gone_clusters=sorted({cluster for (cluster, _), _ in gone}),
            also_elsewhere=len(lost),
        )


def _is_of(namespace: ProjectNamespace, cluster_uid: str) -> bool:
    """Whether the namespace is of this cluster; entries of before uids were kept are of the one that has the name."""
    return bool(cluster_uid) and namespace.cluster_uid in ("", cluster_uid)


def _age(project: Project) -> tuple[str, str]:
    created = project.metadata.creation_timestamp
    return (created.isoformat() if created else "", project.uid)


def keys_of_project(change: Change) -> Iterable[str]:
    return () if change.after is None else (change.key.partition(".")[2],)


def keys_of_cluster(projects: Objects[Project]) -> Callable[[Change], Iterable[str]]:
    """All projects with namespaces in a cluster that went away."""

    def keys(change: Change) -> Iterable[str]:
        cluster = change.key.partition(".")[2]
        if change.after is not None:
            return ()
        return [p.name for p in projects.all() if any(n.cluster == cluster for n in p.spec.namespaces)]

    return keys
