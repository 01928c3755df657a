"""The pure decisions: may this token register this agent, and what does a cluster's status say, given what is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.common import errors
from libs.common.contracts.messages import Heartbeat, PartReport
from libs.common.resources.clusters import AppliedPart, Cluster, RegistrationToken
from services.cluster_controller.liveness import WRITE_EVERY_S
from services.cluster_controller.model import FINALIZER, FORCE_DELETE, RegistrationSecret, unknown_token

PENDING, ACTIVE, DISCONNECTED, DELETING = "Pending", "Active", "Disconnected", "Deleting"
REGISTERED, CONNECTED, APPLIED, READY, DETACHED = "Registered", "Connected", "Applied", "Ready", "Detached"


def check_registration(
    secret: RegistrationSecret,
    token: RegistrationToken | None,
    cluster: Cluster | None,
    now: datetime,
    public_key: str = "",
) -> None:
    """Whether the secret may be exchanged now (for `public_key`, when given). Raises Unauthenticated, Expired, NotFound, Conflict.

    A used token is good again for the very key that it registered: the agent did not hear the answer and asks again.
    """
    if token is None or not secret.matches(token.private.secret_hash):
        raise unknown_token()
    if now >= token.spec.expires_at:
        raise errors.Expired("the registration token has expired: issue a fresh one")
    if cluster is None or cluster.uid != token.spec.cluster_uid:
        raise errors.NotFound(
            f'cluster "{token.spec.cluster}" of this registration token is gone: create it again and issue a fresh token'
        )
    if cluster.deleting:
        raise errors.Conflict(f'cluster "{cluster.name}" is being deleted: no agent can register for it')
    if token.status.used_at is not None and (not public_key or cluster.status.agent.public_key != public_key):
        raise errors.Conflict("the registration token was used already: issue a fresh one")


@dataclass(frozen=True, slots=True)
class Known:
    """What the service knows about a cluster beside the object. `heartbeat` None with `sure` = its agent is silent."""

    heartbeat: Heartbeat | None
    sure: bool
    desired: Mapping[str, str]
    """Part name → hash of what is rendered now."""


def update_status(cluster: Cluster, known: Known, now: datetime) -> bool:
    """Bring status in line with what is known. Returns whether anything changed that is worth a write."""
    status, generation = cluster.status, cluster.metadata.generation
    before = status.model_dump()
    registered = bool(status.agent.public_key)
    if registered:
        status.set_condition(REGISTERED, True, "AgentRegistered", "an agent has registered", now, generation)
    else:
        status.set_condition(REGISTERED, False, "NoAgent", "no agent has registered yet", now, generation)
    _update_connected(cluster, known, now)
    _update_applied(cluster, known, now)
    connected = status.condition(CONNECTED)
    is_connected = connected is not None and connected.status == "True"
    if cluster.deleting:
        status.phase = DELETING
    elif not registered:
        status.phase = PENDING
    elif is_connected:
        status.phase = ACTIVE
    elif known.sure:
        status.phase = DISCONNECTED
    status.observed_generation = generation
    return status.model_dump() != before


def _update_connected(cluster: Cluster, known: Known, now: datetime) -> None:
    status, generation, beat = cluster.status, cluster.metadata.generation, known.heartbeat
    if beat is not None:
        status.set_condition(CONNECTED, True, "Heartbeats", "the agent is connected", now, generation)
        last = status.agent.last_heartbeat
        if last is None or now - last >= timedelta(seconds=WRITE_EVERY_S - 1):
            status.agent.last_heartbeat = now
        status.agent.version = beat.agent_version
        status.agent.trusted_ca, status.agent.carrier = beat.trusted_ca, beat.carrier
        status.agent.username = beat.username or status.agent.username
        if beat.kubernetes_version:
            status.kubernetes_version = beat.kubernetes_version
        if beat.node_count is not None:
            status.node_count = beat.node_count
        if not beat.api_server_healthy:
            why = beat.api_server_message or "it does not answer"
            status.set_condition(
                READY, False, "APIServerUnhealthy", f"the API server is not healthy: {why}", now, generation
            )
        elif beat.tunnels == 0:
            status.set_condition(
                READY,
                False,
                "NoTunnel",
                "the agent has no connection ready for calls to the API server",
                now,
                generation,
            )
        else:
            status.set_condition(
                READY, True, "APIServerHealthy", "the API server answers and can be reached", now, generation
            )
        return
    if not status.agent.public_key:
        status.set_condition(CONNECTED, False, "NoAgent", "no agent has registered yet", now, generation)
        status.set_condition(READY, False, "NoAgent", "no agent has registered yet", now, generation)
    elif known.sure:
        last = status.agent.last_heartbeat
        since = f" since {last:%Y-%m-%dT%H:%M:%SZ}" if last is not None else ""
        status.set_condition(CONNECTED, False, "NoHeartbeat", f"the agent has not been heard{since}", now, generation)
        status.set_condition(
            READY, None, "NoHeartbeat", "nothing is known of the cluster while its agent is silent", now, generation
        )


def _update_applied(cluster: Cluster, known: Known, now: datetime) -> None:
    status, generation = cluster.status, cluster.metadata.generation
    if cluster.deleting:
        return
    applied = {part.name: part for part in status.applied}
    failed = sorted(name for name, part in applied.items() if part.error and name in known.desired)
    behind = sorted(name for name, hash_ in known.desired.items() if name not in applied or applied[name].hash != hash_)
    status.behind = behind
    if failed:
        part = applied[failed[0]]
        status.set_condition(APPLIED, False, "Failed", f'part "{part.name}": {part.error}', now, generation)
    elif behind:
        status.set_condition(APPLIED, False, "Outdated", f"not applied yet: {', '.join(behind)}", now, generation)
    else:
        status.set_condition(APPLIED, True, "Applied", "the cluster has accepted the desired set", now, generation)


def merge_reports(applied: Sequence[AppliedPart], reports: Sequence[PartReport], now: datetime) -> list[AppliedPart]:
    """The stored parts after a report of all parts; the time moves only for what changed."""
    before = {part.name: part for part in applied}
    merged: list[AppliedPart] = []
    for report in sorted(reports, key=lambda r: r.name):
        old = before.get(report.name)
        fresh = AppliedPart(
            name=report.name,
            hash=report.hash,
            applied_at=now,
            objects=report.objects,
            error=report.error,
            remarks=report.remarks,
        )
        _note_repairs(fresh, old, report, now)
        if old is not None and old.model_copy(update={"applied_at": now}) == fresh:
            fresh = old
        elif old is not None and (old.hash, old.objects, old.error) == (fresh.hash, fresh.objects, fresh.error):
            fresh.applied_at = old.applied_at
        merged.append(fresh)
    return merged


def _note_repairs(fresh: AppliedPart, old: AppliedPart | None, report: PartReport, now: datetime) -> None:
    """What was put right last stays to be seen, also when the agent that did it has started anew since."""
    if report.repairs:
        fresh.repairs, fresh.repaired, fresh.repaired_at = report.repairs, report.repaired, now
    if old is not None and (not report.repairs or (old.repairs, old.repaired) == (fresh.repairs, fresh.repaired)):
        fresh.repairs, fresh.repaired, fresh.repaired_at = old.repairs, old.repaired, old.repaired_at


@dataclass(frozen=True, slots=True)
class Release:
    """Whether a cluster that is being deleted may be forgotten now, why, and whether its agent must be told to detach later."""

    ready: bool
    reason: str
    message: str
    abandoned: bool = False


def decide_release(cluster: Cluster, connected: bool) -> Release:
    """The deletion state machine: what to do next with a cluster that has a deletionTimestamp."""
    name, detached = cluster.name, cluster.status.condition(DETACHED)
    if detached is not None and detached.status == "True":
        return Release(True, "Detached", detached.message)
    if not cluster.status.agent.public_key:
        return Release(True, "NeverRegistered", "no agent ever registered: there is nothing to remove")
    if (cluster.metadata.annotations or {}).get(FORCE_DELETE) == "true":
        return Release(True, "Forced", list_leftovers(cluster), abandoned=True)
    if connected:
        return Release(False, "Detaching", "the agent was told to remove everything that it owns")
    return Release(
        False, "AgentDisconnected",
        f'the agent of "{name}" is not connected, so nothing can be removed there: connect it, or give up what it left with '
        f"the annotation {FORCE_DELETE}=true",
    )  # fmt: skip


def list_leftovers(cluster: Cluster) -> str:
    """What a forced deletion may leave in the cluster, for a person to remove."""
    parts = (
        ", ".join(f"{part.name} ({part.objects} objects)" for part in cluster.status.applied)
        or "nothing reported as applied"
    )
    return (
        f"forced: the cluster may still hold {parts}, the namespace herdsman-system and the agent's ClusterRole and binding, "
        "all labelled app.kubernetes.io/managed-by=herdsman; an agent that comes back removes them by itself"
    )


def has_our_finalizer(cluster: Cluster) -> bool:
    return FINALIZER in (cluster.metadata.finalizers or ())
