"""Makes a namespace in a project's cluster: writes it into the project, and answers when the cluster has it with all that belongs to it.

Serves `create_namespace`. Nothing here is needed for the outcome: whoever writes the entry themselves gets the same namespace. What is
added is the wait, and that an entry is taken back when the cluster has such a namespace of somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.common import errors
from libs.common.apiserver import rights as api_rights
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import WriteContext
from libs.common.bus.base import Message
from libs.common.contracts.messages import NamespaceCreate, NamespaceCreated
from libs.common.observe import log
from libs.common.resources import codec
from libs.common.resources.clusters import Cluster
from libs.common.resources.projects import Project, ProjectNamespace
from libs.common.store.objects import Objects, read
from services.project import rights, rules, shares
from services.project.means import Means
from services.project.observed import Observed
from services.project.retry import again
from services.project.status import is_part_of, judge_cluster
from services.project.writes import PROJECTS, put_of

WAIT_S = 10.0
MANAGER = "herdsman-project-namespaces"
LABEL = "management.herdsman.dev/project"


class News:
    """Wakes everybody who waits for something to change in a cluster."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Set when something changes after this call."""
        return self._next


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a namespace so far. `final`: waiting changes nothing; `foreign`: it is in the cluster and somebody else's."""

    final: bool
    uid: str = ""
    pending: str = ""
    foreign: bool = False


class NamespaceMaker:
    def __init__(
        self, means: Means, projects: Objects[Project], clusters: Objects[Cluster], observed: Observed, news: News,
        wait_s: float = WAIT_S,
    ) -> None:  # fmt: skip
        self._means = means
        self._projects = projects
        self._clusters = clusters
        self._observed = observed
        self._news = news
        self._wait_s = wait_s

    async def handle(self, request: NamespaceCreate, _message: Message | None = None) -> NamespaceCreated:
        """Raises AlreadyExists for a namespace that is there, Denied, NotFound, Invalid with the field; Conflict when others write all the time."""
        ctx, limit = self._means.open_inside(request, "create", request.cluster, dry_run=request.dry_run)
        name = request.project or self._only_project(ctx, request.cluster, limit)
        if limit and name not in limit:
            raise errors.Denied(f"this token is good for projects {', '.join(limit)} only: use another token")
        key = rules.parse_key(name, request.cluster, request.namespace)
        project = await again(lambda: self._enter(ctx, name, key, request))
        if request.dry_run:
            return NamespaceCreated(project=name, cluster=key[0], namespace=key[1])
        log.get("project").info(
            "namespace_asked_for", cluster=key[0], namespace=key[1], project=name,
            principal_id=ctx.principal.principal_id, request_id=request.request_id,
        )  # fmt: skip
        return await self._wait(project, key, ctx.now)

    def _only_project(self, ctx: WriteContext, cluster: str, limit: Collection[str]) -> str:
        """The one project of the cluster in which the caller may have namespaces made, of those that the token is limited to."""
        found = sorted(
            p.name
            for p in self._projects.all()
            if (not limit or p.name in limit)
            and any(n.cluster == cluster for n in p.spec.namespaces)
            and rights.may(ctx.grants, ctx.principal, "create", p.name)
        )
        if not found:
            raise errors.Denied(
                f'there is no project in cluster "{cluster[:63]}" in which you may create namespaces', kind="namespaces"
            )
        if len(found) > 1:
            why = f"you may create namespaces in several projects there: say which by the label {LABEL}: {', '.join(found)}"
            raise errors.Invalid(why, kind="namespaces", causes=[errors.Cause(f"metadata.labels[{LABEL}]", why)])
        return found[0]

    # ── the entry ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _enter(self, ctx: WriteContext, name: str, key: rules.Key, request: NamespaceCreate) -> Project:
        """Write the namespace into the project; returns the project as it is then."""
        try:
            old: Project | None = await read(self._means.store, Project, name)
        except errors.NotFound:
            old = None
        document = codec.to_document(old) if old is not None else None
        api_rights.check_object(ctx.grants, ctx.principal, "get", PROJECTS, name, document)
        assert old is not None, "check_object raises for what is absent"
        if not rights.may(ctx.grants, ctx.principal, "create", name):
            raise validate.denied(ctx.principal.user, "create", Project, name, subresource="namespaces")
        rules.check_kept(old, key[1], request.labels, request.annotations)
        entry = ProjectNamespace(cluster=key[0], namespace=key[1], create=True)
        if any(rules.key_of(n) == key for n in old.spec.namespaces):
            raise _exists(key)
        new = old.model_copy(deep=True)
        new.spec.namespaces.append(entry)
        rules.settle(old, new, ctx.grants.clusters)
        shares.fill_shares(old, new)
        self._means.strategy.check_rights(ctx, old, new)
        # Not before: who may bring nothing into a cluster learns nothing of what is there.
        if self._is_there(key):
            raise _exists(key)
        self._means.strategy.check(ctx, old, new, {})
        if await self._means.claims.find_holders([entry], name):
            raise _exists(key)
        claims = await self._means.claims.plan(old, new)
        put = put_of(old, new, MANAGER, ctx.now)
        if not ctx.dry_run:
            new.metadata.resource_version = str(await self._means.store.batch([*claims, put]))
        return new

    async def _take_back(self, name: str, uid: str, key: rules.Key) -> None:
        """The entry goes again: what it asked for is somebody else's."""
        old = await read(self._means.store, Project, name)
        kept = [n for n in old.spec.namespaces if rules.key_of(n) != key or not n.create]
        if old.uid != uid or len(kept) == len(old.spec.namespaces):
            return
        new = old.model_copy(deep=True)
        new.spec.namespaces = kept
        shares.fill_shares(old, new)
        await self._means.store.batch(
            [*await self._means.claims.plan(old, new), put_of(old, new, MANAGER, self._means.now())]
        )

    def _is_there(self, key: rules.Key) -> bool:
        cluster = self._clusters.get(key[0])
        return cluster is not None and self._observed.get(cluster.uid, key[1]) is not None

    # ── the cluster ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _wait(self, project: Project, key: rules.Key, written: datetime) -> NamespaceCreated:
        """Until the cluster has it and all that the project says of it, or cannot have it, or the time is over."""
        deadline = asyncio.get_running_loop().time() + self._wait_s
        while True:
            news = self._news.next()
            found = self._look(project, key, written)
            if found.final:
                break
            try:
                async with asyncio.timeout_at(deadline):
                    await news.wait()
            except TimeoutError:
                break
        if found.foreign:
            try:
                await again(lambda: self._take_back(project.name, project.uid, key))
            except errors.NotFound:
                log.get("project").info("project_gone_meanwhile", project=project.name)
            raise _exists(key)
        return NamespaceCreated(
            project=project.name, cluster=key[0], namespace=key[1], uid=found.uid, pending=found.pending
        )

    def _look(self, project: Project, key: rules.Key, written: datetime) -> Found:
        cluster = self._clusters.get(key[0])
        state, message = judge_cluster(project.name, cluster)
        if cluster is None:
            return Found(final=True, pending=message)
        seen = self._observed.get(cluster.uid, key[1])
        if seen is not None and seen.project != project.uid:
            # The agent marks what it makes with its first write, so this is none of ours.
            return Found(final=True, foreign=True)
        connected = cluster.status.condition("Connected")
        if connected is None or connected.status != "True":
            return Found(
                final=True, pending="the cluster's agent is not connected: it makes the namespace when it is back"
            )
        since = written - timedelta(seconds=1)
        fresh = any(is_part_of(p.name, project.name) and p.applied_at >= since for p in cluster.status.applied)
        if seen is not None and state == "Applied" and fresh:
            return Found(final=True, uid=seen.uid)
        return Found(final=False, pending=message or "the cluster has not taken it over yet")


def _exists(key: rules.Key) -> errors.AlreadyExists:
    return errors.AlreadyExists(f'namespaces "{key[1]}" already exists', kind="namespaces", name=key[1])
