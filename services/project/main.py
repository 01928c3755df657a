"""The wiring of project."""

from __future__ import annotations

from typing import Any

from libs.common.access.live import start_live_grants
from libs.common.apiserver.strategy import Strategy
from libs.common.apiserver.writer import ResourceWriter
from libs.common.contracts.methods import MOVE_NAMESPACE, WRITE
from libs.common.reconcile import Reconciler, follow
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.projects import Project
from libs.common.runtime.host import Host
from libs.common.store.objects import Objects
from services.project.claims import CLAIMS, Claims
from services.project.config import ProjectConfig
from services.project.moves import Mover
from services.project.reconciler import ProjectReconciler, keys_of_cluster, keys_of_project
from services.project.strategies import ProjectStrategy


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
    strategy = ProjectStrategy(claims, clusters, bindings)
    strategies: dict[str, Strategy[Any]] = {"projects": strategy}
    mover = Mover(store, claims, strategy, host.verifier, grants, host.now)
    await host.serve(MOVE_NAMESPACE, mover.handle)
    writer = ResourceWriter(store, strategies, host.verifier, grants, host.now)
    await host.serve(WRITE["project"], writer.handle)
