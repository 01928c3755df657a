"""The wiring of authz."""

from __future__ import annotations

from typing import Any

from libs.common.access.live import start_live_grants
from libs.common.apiserver.strategy import Strategy
from libs.common.apiserver.writer import ResourceWriter
from libs.common.contracts.methods import REPORT_TRIAL, WRITE
from libs.common.reconcile import Reconciler, follow
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.identity import User
from libs.common.resources.policies import AdmissionPolicy, PodSecurityTemplate, PolicyTrial
from libs.common.resources.projects import Project
from libs.common.resources.requests import AccessPolicy, AccessRequest
from libs.common.runtime.host import Host
from libs.common.store.objects import Objects
from services.authz.binding_strategy import BindingStrategy
from services.authz.bootstrap import AdminBootstrap
from services.authz.break_glass import Alarms, BreakGlassGuard, GuardedRoleStrategy
from services.authz.builtins import ensure_builtins
from services.authz.config import AuthzConfig
from services.authz.creators import CreatorDefaults, keys_of_gone, keys_of_made
from services.authz.policy_of_requests import AccessPolicyStrategy
from services.authz.policy_reconciler import PolicyReconciler, keys_of_cluster, keys_of_policy, keys_of_trial
from services.authz.policy_strategies import admission_strategy, pod_security_strategy
from services.authz.reconciler import BindingReconciler, Naming, keys_of_binding
from services.authz.request_strategy import AccessRequestStrategy
from services.authz.requests import RequestReconciler, keys_of_request, requests_of_binding, requests_of_policy
from services.authz.strategies import AuditPolicyStrategy
from services.authz.subject_reconciler import ProviderSpread, SubjectReconciler
from services.authz.subjects import Subjects
from services.authz.trials import Trials


async def build(host: Host[AuthzConfig]) -> None:
    store = host.store("authz")
    await ensure_builtins(store, host.now)
    grants = await start_live_grants(host)
    templates_seen, bindings_seen = (
        await host.informer("authz", "roletemplates"), await host.informer("authz", "roletemplatebindings")
    )  # fmt: skip
    users_seen = await host.informer("identity", "users")
    providers_seen = await host.informer("identity", "identityproviders")
    groups_seen = await host.informer("identity", "groups")
    clusters_seen, projects_seen = (
        await host.informer("cluster_controller", "clusters"),
        await host.informer("project", "projects"),
    )
    policies_seen = await host.informer("authz", "accesspolicies")
    requests_seen = await host.informer("authz", "accessrequests")
    admission_seen = await host.informer("authz", "admissionpolicies")
    pod_security_seen = await host.informer("authz", "podsecuritytemplates")
    trials_seen = await host.informer("authz", "policytrials")
    templates, bindings = Objects(templates_seen, RoleTemplate), Objects(bindings_seen, RoleTemplateBinding)
    subjects = Subjects(bindings, lambda name: telling.add(name), lambda provider: spreading.add(provider))
    telling = Reconciler("binding subjects", SubjectReconciler(store, subjects, host.now).reconcile)
    spreading = Reconciler("providers of bindings", ProviderSpread(subjects).reconcile, workers=1)
    subjects.follow(providers_seen, users_seen, groups_seen)
    await host.synced()

    sweeper = Reconciler("bindings", BindingReconciler(store, host.store, bindings, host.now).reconcile)
    follow(bindings_seen, sweeper, keys_of_binding)
    naming = Naming(bindings_seen)
    for informer in (clusters_seen, projects_seen, users_seen):
        follow(informer, sweeper, naming.keys)
    host.spawn("binding sweeper", sweeper.run())

    await subjects.begin()
    host.spawn("providers of bindings", spreading.run())
    host.spawn("binding subjects", telling.run())
    makers = CreatorDefaults(
        store, host.store, templates, Objects(clusters_seen, Cluster), Objects(projects_seen, Project), grants, host.now
    )  # fmt: skip
    binding_makers, forgetting = Reconciler("makers", makers.reconcile), Reconciler("makers gone", makers.forget)
    for informer in (clusters_seen, projects_seen):
        follow(informer, binding_makers, keys_of_made)
        follow(informer, forgetting, keys_of_gone)
    host.spawn("makers", binding_makers.run())
    host.spawn("makers gone", forgetting.run())

    if host.config.bootstrap_admin_user:
        wanted = host.config.bootstrap_admin_user
        first = Reconciler(
            "first admin",
            AdminBootstrap(store, Objects(users_seen, User), bindings, wanted, host.now).reconcile,
            workers=1,
        )
        follow(
            users_seen,
            first,
            lambda change: [wanted] if change.key == f"users.{wanted}" and change.before is None else [],
        )
        host.spawn("first admin", first.run())

    policies, requests = Objects(policies_seen, AccessPolicy), Objects(requests_seen, AccessRequest)
    alarms = Alarms(store, requests, host.now)
    closer = Reconciler("access requests", RequestReconciler(store, policies, requests, alarms, host.now).reconcile)
    follow(requests_seen, closer, keys_of_request)
    follow(policies_seen, closer, requests_of_policy(requests))
    follow(bindings_seen, closer, requests_of_binding(requests))
    host.spawn("access requests", closer.run())

    limits: dict[str, Objects[Any]] = {
        "AdmissionPolicy": Objects(admission_seen, AdmissionPolicy),
        "PodSecurityTemplate": Objects(pod_security_seen, PodSecurityTemplate),
    }
    clusters = Objects(clusters_seen, Cluster)
    telling_limits = Reconciler(
        "policies", PolicyReconciler(store, limits, clusters, Objects(trials_seen, PolicyTrial), host.now).reconcile
    )
    follow(admission_seen, telling_limits, keys_of_policy)
    follow(pod_security_seen, telling_limits, keys_of_policy)
    follow(trials_seen, telling_limits, keys_of_trial)
    follow(clusters_seen, telling_limits, keys_of_cluster(limits))
    host.spawn("policies", telling_limits.run())

    giving, guard = BindingStrategy(templates, grants), BreakGlassGuard(policies, grants.bindings)
    strategies: dict[str, Strategy[Any]] = {
        "roletemplates": GuardedRoleStrategy(templates, grants.bindings, guard),
        "roletemplatebindings": giving,
        "auditpolicies": AuditPolicyStrategy(),
        "admissionpolicies": admission_strategy(),
        "podsecuritytemplates": pod_security_strategy(),
        "accesspolicies": AccessPolicyStrategy(templates, guard, grants),
        "accessrequests": AccessRequestStrategy(
            store, policies, requests, templates, grants.bindings, Objects(users_seen, User), giving, grants
        ),
    }
    writer = ResourceWriter(store, strategies, host.verifier, grants, host.now)
    await host.serve(WRITE["authz"], writer.handle)
    await host.serve(REPORT_TRIAL, Trials(store, limits, clusters, host.now).handle)
