"""The whole wiring of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime

from libs.common.access.live import start_live_grants
from libs.common.apiserver.writer import ResourceWriter
from libs.common.bus.accounts import issue_agent_jwt, public_key
from libs.common.bus.revocation import AgentsAccount, RevocationList
from libs.common.contracts import methods, subjects
from libs.common.contracts.messages import Heartbeat
from libs.common.reconcile import Reconciler, follow
from libs.common.resources.clusters import Cluster, RegistrationToken
from libs.common.resources.registry import BY_MODEL
from libs.common.runtime.host import Host
from libs.common.store.informer import Change
from libs.common.store.objects import Objects
from services.cluster_controller.agents import Agents
from services.cluster_controller.config import ClusterControllerConfig
from services.cluster_controller.credentials import AgentIssuer, Push, follow_revocations
from services.cluster_controller.desired import DesiredSets
from services.cluster_controller.liveness import Liveness
from services.cluster_controller.model import DEPARTED, REVOCATIONS
from services.cluster_controller.policies import Policies
from services.cluster_controller.reconciler import ClusterReconciler, watch_liveness
from services.cluster_controller.registration import Registration
from services.cluster_controller.strategies import ClusterStrategy, RegistrationTokenStrategy
from services.cluster_controller.sweeper import Sweeper
from services.cluster_controller.view import Clusters, Projects

ROLES_SETTLE_S = 0.3
"""Role templates change in bunches (a file applied by kubectl): clusters are looked at once for all of them."""
RECONCILE_WORKERS = 8
REVOCATION_OFF = "revocation_not_configured"


async def build(host: Host[ClusterControllerConfig]) -> None:
    config, now = host.config, host.now
    kind, tokens_kind = BY_MODEL[Cluster], BY_MODEL[RegistrationToken]
    store = host.store(kind.bucket)
    grants = await start_live_grants(host)
    cluster_informer = await host.informer(kind.bucket, kind.plural)
    token_informer = await host.informer(kind.bucket, tokens_kind.plural)
    role_informer = await host.informer("authz", "roletemplates")
    project_informer = await host.informer("project", "projects")
    policy_informers = [
        await host.informer("authz", plural) for plural in ("admissionpolicies", "podsecuritytemplates")
    ]
    revocations = await host.informer(kind.bucket, REVOCATIONS)
    departed = await host.informer(kind.bucket, DEPARTED)
    await host.synced()

    seed = (await asyncio.to_thread(config.agents_signing_seed_file.read_bytes)).strip()
    issuer = AgentIssuer(
        lambda uid, key, ttl_s: issue_agent_jwt(seed, config.agents_account, uid, key, ttl_s, now()),
        config.agent_jwt_ttl_s,
        now,
    )
    clusters, tokens = Clusters(cluster_informer), Objects(token_informer, RegistrationToken)
    liveness = Liveness(host.monotonic())
    projects = Projects(project_informer)
    policies = Policies(clusters, *policy_informers)
    desired = DesiredSets(grants, projects, policies)
    reconciling = ClusterReconciler(store, clusters, tokens, desired, liveness, host.bus, now, host.monotonic)
    reconciler = Reconciler("clusters", reconciling.reconcile, workers=RECONCILE_WORKERS)

    def all_clusters(_change: Change) -> Iterable[str]:
        for name in clusters.names():
            reconciler.add(name, ROLES_SETTLE_S)
        return ()

    follow(cluster_informer, reconciler, lambda change: (change.key.removeprefix(kind.key("")),), prefix=kind.plural)
    follow(role_informer, reconciler, all_clusters)
    follow(project_informer, reconciler, projects.touched, prefix="projects")
    for informer in policy_informers:
        follow(informer, reconciler, policies.touched)
    sweeper = Sweeper(store, clusters, tokens, revocations, departed, config.agent_jwt_ttl_s, now)

    writer = ResourceWriter(
        store,
        {kind.plural: ClusterStrategy(grants.bindings, policies.all), tokens_kind.plural: RegistrationTokenStrategy()},
        host.verifier,
        grants,
        now,
    )
    registration = Registration(store, tokens, host.verifier, grants, issuer, now)
    agents = Agents(store, clusters, desired, issuer, liveness, reconciler.add, now, host.monotonic)

    await host.listen(subjects.heartbeat("*"), Heartbeat, agents.listen_heartbeat)
    await host.serve(methods.RENEW_AGENT, agents.handle_renew)
    await host.serve(methods.GET_DESIRED, agents.handle_desired)
    await host.serve(methods.REPORT_APPLIED, agents.handle_applied)
    await host.serve(methods.ISSUE_REGISTRATION, registration.handle_issue)
    await host.serve(methods.CHECK_REGISTRATION, registration.handle_check)
    await host.serve(methods.REGISTER_AGENT, registration.handle_register)
    await host.serve(methods.WRITE[host.service], writer.handle)
    push = _make_push(config, public_key(seed), now)
    if push is None:
        host.log.warning(
            REVOCATION_OFF, advice="set platform_account, operator_seed_file and system_creds: until then a revoked agent stays "
            f"on the bus until its JWT expires (at most {config.agent_jwt_ttl_s} s)",
        )  # fmt: skip
    else:
        host.spawn("revocations", follow_revocations(revocations, push).run())
    host.spawn("reconcile clusters", reconciler.run())
    host.spawn("liveness", watch_liveness(clusters, liveness, host.bus, reconciler.add, host.monotonic))
    host.spawn("sweeper", sweeper.run())


def _make_push(config: ClusterControllerConfig, signing: str, now: Callable[[], datetime]) -> Push | None:
    """What tells the servers which agents' keys are revoked; None when the settings do not allow it."""
    if not config.platform_account or config.operator_seed_file is None or config.system_creds is None:
        return None
    account = AgentsAccount(config.agents_account, config.platform_account, signing, config.operator_seed_file)
    return RevocationList(account, tuple(config.nats_url), config.system_creds, now).push
