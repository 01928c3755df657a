"""The wiring of project."""

from __future__ import annotations

import time
from typing import Any

from libs.common.access.live import start_live_grants
from libs.common.apiserver.strategy import Strategy
from libs.common.apiserver.writer import ResourceWriter
from libs.common.bus.base import Message
from libs.common.contracts import subjects
from libs.common.contracts.messages import NamespacesObserved
from libs.common.contracts.methods import CREATE_NAMESPACE, MAKE_PROJECT, MOVE_NAMESPACE, WRITE
from libs.common.reconcile import Reconciler, follow
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.projects import Project
from libs.common.runtime.host import Host
from libs.common.store.objects import Objects
from services.project.claims import CLAIMS, Claims
from services.project.config import ProjectConfig
from services.project.means import Means
from services.project.moves import Mover
from services.project.namespaces import NamespaceMaker, News
from services.project.observed import LivingClusters, Observed
from services.project.reconciler import ProjectReconciler, keys_of_cluster, keys_of_project
from services.project.status_reconciler import StatusReconciler, keys_of_applied, keys_of_seen
from services.project.strategies import ProjectStrategy
from services.project.template_strategy import ProjectTemplateStrategy
from services.project.templates import TemplateMaker

MANY_WAIT = 512
"""Namespaces that are waited for at once: each for up to ten seconds, doing nothing."""


async def build(host: Host[ProjectConfig]) -> None:
    store = host.store("project")
    grants = await start_live_grants(host)
    projects_seen = await host.informer("project", "projects")
    clusters_seen = await host.informer("cluster_controller", "clusters")
    bindings_seen = await host.informer("authz", "roletemplatebindings")
    claims_seen = await host.informer("project", CLAIMS)
    await host.synced()
    projects = Objects(projects_seen, Project)
    claims = Claims(store, projects)

    reconciler = ProjectReconciler(
        store, host.store("cluster_controller"), projects, claims, lambda key: claims_seen.get(key) is not None, host.now
    )  # fmt: skip
    keeper = Reconciler("projects", reconciler.reconcile)
    follow(projects_seen, keeper, keys_of_project)
    follow(clusters_seen, keeper, keys_of_cluster(projects))
    host.spawn("project keeper", keeper.run())

    clusters, bindings = Objects(clusters_seen, Cluster), Objects(bindings_seen, RoleTemplateBinding)
    observed, news = Observed(), News()
    clusters_seen.subscribe(lambda _change: news.tell(), replay=False)
    living = LivingClusters(clusters_seen, observed.forget)
    teller = StatusReconciler(store, projects, clusters, observed, host.now, time.monotonic)
    statuses = Reconciler("project statuses", teller.reconcile)
    follow(projects_seen, statuses, keys_of_project)
    follow(clusters_seen, statuses, keys_of_applied(projects))
    host.spawn("project statuses", statuses.run())

    async def observe(message: NamespacesObserved, context: Message) -> None:
        cluster = living.names.get(context.tokens[0])
        if cluster is None:
            return  # an agent of a deleted cluster, or one that this copy does not know yet: it lists again
        for name in keys_of_seen(claims_seen, cluster, observed.put(context.tokens[0], message)):
            statuses.add(name)
        news.tell()

    # Each replica hears all: any of them may be asked for a namespace.
    await host.listen(subjects.observation("*", "namespaces"), NamespacesObserved, observe)
    strategy = ProjectStrategy(claims, clusters, bindings)
    strategies: dict[str, Strategy[Any]] = {"projects": strategy, "projecttemplates": ProjectTemplateStrategy(bindings)}
    means = Means(store, claims, strategy, host.verifier, grants, host.now)
    maker = NamespaceMaker(means, projects, clusters, observed, news)
    await host.serve(MAKE_PROJECT, TemplateMaker(means).handle)
    await host.serve(CREATE_NAMESPACE, maker.handle, concurrency=MANY_WAIT)
    await host.serve(MOVE_NAMESPACE, Mover(means).handle)
    writer = ResourceWriter(store, strategies, host.verifier, grants, host.now)
    await host.serve(WRITE["project"], writer.handle)
