"""From the agent's report to the policy's status, in a hub in memory; and who may write policies."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import pytest

from libs.common import errors
from libs.common.bus.base import Message
from libs.common.contracts.messages import TrialOffender, TrialReport
from libs.common.policies.choice import TRIAL, trial_id
from libs.common.resources.clusters import AppliedPart, Cluster
from libs.common.resources.policies import AdmissionPolicy, PodSecurityTemplate, PolicyTrial
from services.authz.builtins import ensure_builtins
from services.authz.policy_reconciler import PolicyReconciler, keys_of_cluster
from services.authz.policy_strategies import admission_strategy, pod_security_strategy
from services.authz.trials import Trials
from tests.access import made
from tests.access.hub import running_hub
from tests.policies.made import admission

ADA, PAM, OLGA = (made.user(name) for name in ("ada", "pam", "olga"))


@asynccontextmanager
async def world(clock: Any) -> Any:
    """Pam manages policies, Olga owns the cluster east."""
    async with running_hub(clock) as hub:
        store = hub.stores["authz"]
        await ensure_builtins(store, clock)
        await hub.put(ADA, PAM, OLGA, made.cluster("east"))
        await hub.put(
            made.binding(PAM, "policy-manager", everywhere=True), made.binding(OLGA, "cluster-owner", cluster="east")
        )
        policies = {
            "AdmissionPolicy": hub.objects(AdmissionPolicy),
            "PodSecurityTemplate": hub.objects(PodSecurityTemplate),
        }
        clusters = hub.objects(Cluster)
        hub.trials = Trials(store, policies, clusters, clock)
        hub.reconciler = PolicyReconciler(store, policies, clusters, hub.objects(PolicyTrial), clock)
        writer = hub.writer(
            "authz", {"admissionpolicies": admission_strategy(), "podsecuritytemplates": pod_security_strategy()}
        )
        yield hub, writer


def report(policy: AdmissionPolicy, **more: Any) -> TrialReport:
    given = {
        "policy_kind": "AdmissionPolicy", "policy": policy.name, "policy_uid": policy.uid, "generation": policy.metadata.generation,
        "trial": trial_id(policy), "looked": 7, "violations": 1, "complete": True,
        "offenders": [TrialOffender(resource="pods", namespace="web", name="loud", message="no")], **more,
    }  # fmt: skip
    return TrialReport.model_validate(given)


def said_by(uid: str) -> Message:
    return Message(f"up.{uid}.rpc.authz.trial", b"", {}, (uid,))


async def test_what_an_agent_found_is_told_and_goes_with_the_policy(clock: Any) -> None:
    async with world(clock) as (hub, writer):
        await hub.write(writer, PAM, "create", admission())
        policy = await hub.get(AdmissionPolicy, "teams")
        # The same twice, and then another count: one object for a policy and a cluster, the newest.
        for count in (1, 1, 3):
            await hub.trials.handle(report(policy, violations=count), said_by("uid-east"))
            await hub.settle()
        trial = await hub.get(PolicyTrial, "admission.teams.east")
        assert (trial.status.violations, trial.status.offenders[0].name, trial.spec.cluster) == (3, "loud", "east")
        await hub.reconciler.reconcile("AdmissionPolicy/teams")
        entry = (await hub.get(AdmissionPolicy, "teams")).status.clusters[0]
        assert (entry.name, entry.state, entry.violations, entry.looked) == ("east", "Pending", 3, 7)
        await hub.settle()
        await hub.delete(policy)
        await hub.reconciler.reconcile("AdmissionPolicy/teams")
        with pytest.raises(errors.NotFound):
            await hub.get(PolicyTrial, "admission.teams.east")


async def test_a_report_of_another_policy_version_or_cluster_is_nothing(clock: Any) -> None:
    async with world(clock) as (hub, writer):
        await hub.write(writer, PAM, "create", admission())
        policy = await hub.get(AdmissionPolicy, "teams")
        for told, uid, refusal in (
            (report(policy), "uid-gone", errors.NotFound),
            (report(policy, policy_uid="an earlier one"), "uid-east", errors.NotFound),
            (report(policy, policy_kind="Cluster"), "uid-east", errors.NotFound),
            (report(policy, trial="an earlier one"), "uid-east", errors.Conflict),
        ):
            with pytest.raises(refusal):
                await hub.trials.handle(told, said_by(uid))
        body = {"metadata": {"annotations": {TRIAL: "again"}}}
        await hub.write(writer, PAM, "patch", "teams", plural="admissionpolicies", body=body)
        with pytest.raises(errors.Conflict):
            await hub.trials.handle(report(policy), said_by("uid-east"))


async def test_owners_of_clusters_write_no_policies_and_nobody_writes_their_status(clock: Any) -> None:
    async with world(clock) as (hub, writer):
        with pytest.raises(errors.Denied):
            await hub.write(writer, OLGA, "create", admission(clusters={"names": ["east"]}))
        with pytest.raises(errors.Invalid, match="has not stood in Audit"):
            await hub.write(writer, PAM, "create", admission(stage="Enforce"))
        await hub.write(writer, PAM, "create", admission(stage="Enforce", enforceAtOnce=True))
        with pytest.raises(errors.Denied):
            await hub.write(writer, PAM, "update", await hub.get(AdmissionPolicy, "teams"), subresource="status")
        reply = await hub.write(writer, PAM, "create", admission("other", clusters={"names": ["west"]}))
        assert reply.warnings == ['spec.clusters.names: there is no cluster "west" now']


async def test_to_enforce_what_was_not_tried_is_told(clock: Any) -> None:
    async with world(clock) as (hub, writer):
        await hub.write(writer, PAM, "create", admission())
        await hub.reconciler.reconcile("AdmissionPolicy/teams")
        await hub.settle()
        reply = await hub.write(
            writer, PAM, "patch", "teams", plural="admissionpolicies", body={"spec": {"stage": "Enforce"}}
        )
        assert reply.warnings == ["it was not tried in east: see policytrials"]


async def test_what_a_cluster_says_of_one_policy_has_that_one_looked_at_and_another_cluster_all(clock: Any) -> None:
    async with world(clock) as (hub, writer):
        for name in ("teams", "other"):
            await hub.write(writer, PAM, "create", admission(name))
        keys: list[str] = []
        of_cluster = keys_of_cluster(hub.reconciler._policies)
        hub.informers["clusters"].subscribe(lambda change: keys.extend(of_cluster(change)), replay=False)

        async def told(**said: Any) -> list[str]:
            east = (await hub.get(Cluster, "east")).model_copy(deep=True)
            for field, value in said.items():
                setattr(east.status if field != "labels" else east.metadata, field, value)
            await hub.put(east)
            found = sorted(keys)
            keys.clear()
            return found

        parts = [
            AppliedPart(name=name, hash="h", applied_at=clock())
            for name in ("roles", "policies/teams", "policies/gone", "pod-security/teams")
        ]
        assert await told(applied=parts) == ["AdmissionPolicy/teams"]
        again = [part.model_copy(update={"applied_at": clock(), "objects": 7}) for part in parts]
        assert await told(applied=again) == []
        assert await told(applied=[]) == ["AdmissionPolicy/teams"]
        assert await told(labels={"zone": "eu"}) == ["AdmissionPolicy/other", "AdmissionPolicy/teams"]


@pytest.mark.parametrize("count", ["looked", "violations", "untried", "generation"])
def test_a_count_that_nobody_could_store_is_no_report(count: str) -> None:
    with pytest.raises(ValueError, match=count):
        report(admission(), **{count: "1" + "0" * 30})
