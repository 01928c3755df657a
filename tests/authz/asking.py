"""A hub in memory on which people ask for roles, for tests: who is there, a policy, requests and decisions."""

from __future__ import annotations

from contextlib import asynccontextmanager

from libs.common.resources.access import RoleTemplate
from libs.common.resources.identity import User
from libs.common.resources.requests import AccessPolicy, AccessRequest
from services.authz.binding_strategy import BindingStrategy
from services.authz.break_glass import Alarms, BreakGlassGuard, GuardedRoleStrategy
from services.authz.builtins import ensure_builtins
from services.authz.policy_of_requests import AccessPolicyStrategy
from services.authz.request_strategy import AccessRequestStrategy
from services.authz.requests import RequestReconciler
from tests.access import made
from tests.access.hub import running_hub

ADA, BOB, EVE, SAM, ROB = (made.user(n) for n in ("ada", "bob", "eve", "sam", "rob"))
ROB.spec.service = True
IDS = {u.name: u.status.principal_id for u in (ADA, BOB, EVE, SAM, ROB)}
EAST = {"cluster": "east"}


def policy(name: str = "p", **spec) -> AccessPolicy:
    given = {
        "roles": ["cluster-member", "cluster-viewer"], "scopes": [EAST], "requesters": [IDS["eve"]],
        "approvers": [IDS["bob"], IDS["sam"], IDS["eve"], IDS["rob"]], **spec,
    }  # fmt: skip
    return AccessPolicy.model_validate({"metadata": {"name": name}, "spec": given})


def ask(name: str = "r", **spec) -> AccessRequest:
    given = {
        "role": "cluster-member",
        "scope": dict(EAST),
        "durationSeconds": 60,
        "reason": "the queue is stuck",
        **spec,
    }
    return AccessRequest.model_validate({"metadata": {"name": name}, "spec": given})


@asynccontextmanager
async def running(clock, *policies: AccessPolicy):
    """Ada is admin and owns every cluster; Bob and the service user Rob own east, Sam sees it; Eve has nothing and may ask."""
    async with running_hub(clock) as hub:
        await ensure_builtins(hub.stores["authz"], clock)
        await hub.put(ADA, BOB, EVE, SAM, ROB, made.cluster("east"), made.cluster("west"), made.project("shop", "east"))
        await hub.put(
            made.binding(ADA, "admin", everywhere=True, name="ada-admin"),
            made.binding(ADA, "cluster-owner", everywhere=True),
            made.binding(BOB, "cluster-owner", cluster="east", name="bob-east"),
            made.binding(ROB, "cluster-owner", cluster="east", name="rob-east"),
            made.binding(SAM, "cluster-viewer", cluster="east", name="sam-east"),
        )
        giving = BindingStrategy(hub.objects(RoleTemplate), hub.live)
        guard = BreakGlassGuard(hub.objects(AccessPolicy), hub.live.bindings)
        roles = GuardedRoleStrategy(hub.objects(RoleTemplate), hub.live.bindings, guard)
        requests = AccessRequestStrategy(
            hub.stores["authz"], hub.objects(AccessPolicy), hub.objects(AccessRequest), hub.objects(RoleTemplate), hub.live.bindings,
            hub.objects(User), giving, hub.live,
        )  # fmt: skip
        writer = hub.writer(
            "authz",
            {
                "accesspolicies": AccessPolicyStrategy(hub.objects(RoleTemplate), guard, hub.live),
                "accessrequests": requests,
                "roletemplates": roles,
            },
        )
        for one in policies or (policy(),):
            await hub.write(writer, ADA, "create", one)
        yield hub, writer


async def decide(hub, writer, who: User, verdict: str = "approve", name: str = "r", **more):
    stored = await hub.get(AccessRequest, name)
    decisions = [*(d.to_document() for d in stored.spec.decisions), {"verdict": verdict, **more}]
    body = {"metadata": {"resourceVersion": stored.metadata.resource_version}, "spec": {"decisions": decisions}}
    await hub.write(writer, who, "patch", name, plural="accessrequests", body=body)
    return await hub.get(AccessRequest, name)


def closer_of(hub, clock):
    requests = hub.objects(AccessRequest)
    return RequestReconciler(
        hub.stores["authz"], hub.objects(AccessPolicy), requests, Alarms(hub.stores["authz"], requests, clock), clock
    )


def groups(hub, who: User = EVE, cluster: str = "east"):
    return hub.live.current.synthetic_groups(made.caller(who), cluster, f"uid-{cluster}")
