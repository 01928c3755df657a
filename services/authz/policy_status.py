"""A policy's status from what its clusters applied and what trials there found. Pure: `policy_reconciler` reads and writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import cache

from libs.common.kube.objects import content_hash
from libs.common.policies.admission import render_admission
from libs.common.policies.choice import is_chosen, part_of
from libs.common.policies.pod_security import render_pod_security
from libs.common.resources.clusters import AppliedPart, Cluster
from libs.common.resources.meta import format_time
from libs.common.resources.policies import (
    AdmissionPolicy,
    PodSecurityTemplate,
    PolicyCluster,
    PolicyStatus,
    PolicyTrial,
)

Policy = AdmissionPolicy | PodSecurityTemplate
DRIFT_SHOWN_S = 3600.0
"""So long it stays to be seen that somebody changed a policy in a cluster, although it was put right at once."""
APPLIED, DRIFTED = "Applied", "Drifted"
UNKNOWN_AGENT = "the cluster's agent has not said under which name it works there, so a policy could shut it out: wait, or upgrade it"
MAX_MESSAGE = 300


def render_status(
    policy: Policy, clusters: Iterable[Cluster], trials: Mapping[str, PolicyTrial], now: datetime
) -> PolicyStatus:
    """The status as it should be. `trials`: what was found, by the uid of the cluster."""
    status = policy.status.model_copy(deep=True)
    before = {entry.name: entry for entry in policy.status.clusters}
    # Agents have the same name nearly everywhere, and rendering is what costs.
    wanted = cache(lambda username: wanted_hash(policy, username))
    status.clusters = [
        _cluster(
            policy,
            cluster,
            before.get(cluster.name),
            trials.get(cluster.uid),
            wanted(cluster.status.agent.username),
            now,
        )
        for cluster in sorted(clusters, key=lambda c: c.name)
        if not cluster.deleting and is_chosen(policy.spec.clusters, cluster.name, cluster.metadata.labels or {})
    ]
    _set_conditions(policy, status, now)
    status.observed_generation = policy.metadata.generation
    return status


def next_change(status: PolicyStatus, policy: Policy, clusters: Mapping[str, Cluster], now: datetime) -> float | None:
    """Seconds until a drift is over; None = nothing changes by time alone."""
    part = part_of(policy.KIND, policy.name)
    ends = [
        (found.repaired_at - now).total_seconds() + DRIFT_SHOWN_S
        for entry in status.clusters
        if entry.state == DRIFTED and (cluster := clusters.get(entry.name)) is not None
        if (found := find_part(cluster, part)) is not None and found.repaired_at is not None
    ]
    return max(1.0, min(ends)) if ends else None


def find_part(cluster: Cluster, name: str) -> AppliedPart | None:
    return next((part for part in cluster.status.applied if part.name == name), None)


def wanted_hash(policy: Policy, username: str) -> str:
    """The hash of what a cluster should hold of this very version, by its agent's name; empty = it cannot be given anything yet."""
    if not username:
        return ""
    if isinstance(policy, AdmissionPolicy):
        return content_hash(render_admission(policy, username))
    return content_hash(render_pod_security(policy))


def judge(policy: Policy, cluster: Cluster, wanted: str, now: datetime) -> tuple[str, str, bool]:
    """State and message of one cluster that should hold what has the hash `wanted`, and whether it holds it."""
    part = find_part(cluster, part_of(policy.KIND, policy.name))
    is_there = part is not None and part.hash == wanted and not part.error
    connected = cluster.status.condition("Connected")
    is_connected = connected is not None and connected.status == "True"
    if part is not None and part.hash == wanted and (part.error or part.remarks):
        return "Failed", part.error or part.remarks, is_there
    if not is_there:
        if not is_connected:
            since = f" since {format_time(connected.last_transition_time)}" if connected is not None else ""
            return "Pending", f"the cluster's agent is not connected{since}: it takes this over when it is back", False
        return "Pending", "the cluster has not taken it over yet" if wanted else UNKNOWN_AGENT, False
    assert part is not None
    if part.repaired_at is not None and now - part.repaired_at < timedelta(seconds=DRIFT_SHOWN_S):
        return "Drifted", f"put right at {format_time(part.repaired_at)}: {part.repaired}", True
    return "Applied", "", True


def _cluster(
    policy: Policy,
    cluster: Cluster,
    before: PolicyCluster | None,
    trial: PolicyTrial | None,
    wanted: str,
    now: datetime,
) -> PolicyCluster:
    state, message, is_there = judge(policy, cluster, wanted, now)
    known = trial.status if trial is not None and trial.spec.policy_uid == policy.uid else None
    counts = known is not None and known.at is not None and not known.message
    held = (policy.metadata.generation or 0) if is_there else before.generation if before is not None else 0
    return PolicyCluster.model_validate(
        {
            "name": cluster.name, "state": state, "generation": held, "message": message[:MAX_MESSAGE],
            "since": before.since if before is not None and before.state == state else now,
            "violations": known.violations if known is not None and counts else None,
            "looked": known.looked if known is not None and counts else None,
            "tried_at": known.at if known is not None else None,
        }
    )  # fmt: skip


def _set_conditions(policy: Policy, status: PolicyStatus, now: datetime) -> None:
    total, generation = len(status.clusters), policy.metadata.generation
    done = sum(c.state in ("Applied", "Drifted") for c in status.clusters)
    told = f"{done} of {total} clusters hold version {generation}"
    for state in ("Failed", "Pending"):
        first = next((c for c in status.clusters if c.state == state), None)
        if first is not None:
            status.set_condition(
                APPLIED, False, state, f"{told}; {first.name}: {first.message}"[:1024], now, generation
            )
            break
    else:
        status.set_condition(APPLIED, True, "Applied", told, now, generation)
    drifted = next((c for c in status.clusters if c.state == DRIFTED), None)
    if drifted is not None:
        status.set_condition(DRIFTED, True, "Repaired", f"{drifted.name}: {drifted.message}"[:1024], now, generation)
    else:
        status.set_condition(DRIFTED, False, "AsItShouldBe", "", now, generation)
