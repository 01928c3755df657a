"""A project's status from what its clusters applied and what their agents saw. Pure: `status_reconciler` reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from libs.common.contracts.messages import NamespaceObservation
from libs.common.quantity import format_quantity, parse_quantity
from libs.common.resources.clusters import AppliedPart, Cluster
from libs.common.resources.meta import format_time
from libs.common.resources.projects import ObservedNamespace, Project, ProjectCluster, ProjectStatus

PARTS = "projects/"
MAX_WITH_USE = 500
"""In a project of more namespaces the status has the sum of what they use alone: an object has a largest size."""
APPLIED, DRIFTED = "Applied", "Drifted"
DRIFT_SHOWN_S = 3600.0
Look = Callable[[str, str], NamespaceObservation | None]
"""Name of a cluster and of a namespace → what was seen of it, None = nothing is known."""
IsAbsent = Callable[[str, str], bool]


def render_status(
    project: Project, clusters: Mapping[str, Cluster], look: Look, is_absent: IsAbsent, now: datetime
) -> ProjectStatus:
    """The status as it should be; what is not known stays as it was written."""
    status = project.status.model_copy(deep=True)
    status.clusters = [
        _cluster_state(project, name, clusters.get(name), now)
        for name in sorted({n.cluster for n in project.spec.namespaces})
    ]
    status.namespaces = _namespaces(project, look, is_absent)
    status.used = sum_used(project, status.namespaces)
    if len(status.namespaces) > MAX_WITH_USE:
        status.namespaces = [n.model_copy(update={"used": {}}) for n in status.namespaces]
    _set_applied(project, status, now)
    _set_drifted(project, status, clusters, now)
    status.observed_generation = project.metadata.generation
    return status


def is_part_of(part: str, project: str) -> bool:
    """Whether a part of a cluster's desired set is this project's; one with many namespaces there has several."""
    return part == f"{PARTS}{project}" or part.startswith(f"{PARTS}{project}/")


def sum_used(project: Project, namespaces: Iterable[ObservedNamespace]) -> dict[str, str]:
    """What of each resource of the quota is used in all namespaces; what cannot be read counts as nothing."""
    total: dict[str, tuple[int, bool]] = {}
    for namespace in namespaces:
        for resource in namespace.used.keys() & project.spec.quota.keys():
            try:
                amount = parse_quantity(namespace.used[resource])
            except ValueError:
                continue
            before, binary = total.get(resource, (0, False))
            total[resource] = (before + amount.nanos, binary or amount.binary)
    return {resource: format_quantity(nanos, binary=binary) for resource, (nanos, binary) in sorted(total.items())}


def _cluster_state(project: Project, name: str, cluster: Cluster | None, now: datetime) -> ProjectCluster:
    state, message = judge_cluster(project.name, cluster)
    before = next((c for c in project.status.clusters if c.name == name), None)
    since = before.since if before is not None and before.state == state else now
    return ProjectCluster.model_validate({"name": name, "state": state, "since": since, "message": message})


def judge_cluster(project: str, cluster: Cluster | None) -> tuple[str, str]:
    """State and message of one cluster for one project."""
    if cluster is None:
        return "Pending", "the cluster is not in the hub"
    parts: dict[str, AppliedPart] = {p.name: p for p in cluster.status.applied if is_part_of(p.name, project)}
    behind = [name for name in cluster.status.behind if is_part_of(name, project)]
    failed = sorted(part.name for part in parts.values() if part.error)
    connected = cluster.status.condition("Connected")
    if connected is None or connected.status != "True":
        since = f" since {format_time(connected.last_transition_time)}" if connected is not None else ""
        if behind or not parts:
            return "Pending", f"the cluster's agent is not connected{since}: it takes this over when it is back"
    if failed and not behind:
        return "Failed", parts[failed[0]].error
    if behind or not parts:
        return "Pending", parts[failed[0]].error if failed else "the cluster has not taken it over yet"
    return "Applied", ""


def _namespaces(project: Project, look: Look, is_absent: IsAbsent) -> list[ObservedNamespace]:
    before = {(n.cluster, n.namespace): n for n in project.status.namespaces}
    found = []
    for entry in project.spec.namespaces:
        key = (entry.cluster, entry.namespace)
        seen = look(*key)
        if seen is not None:
            is_ours = seen.project == project.uid
            found.append(
                ObservedNamespace(
                    cluster=key[0], namespace=key[1], uid=seen.uid, used=dict(seen.used) if is_ours else {},
                    # What the hub makes carries the project's uid from its first moment.
                    foreign=entry.create and not is_ours,
                )
            )  # fmt: skip
        elif is_absent(*key):
            found.append(ObservedNamespace(cluster=key[0], namespace=key[1]))
        elif key in before:
            found.append(before[key])
    return found


def _set_drifted(project: Project, status: ProjectStatus, clusters: Mapping[str, Cluster], now: datetime) -> None:
    """That somebody changed something of the project in a cluster stays to be seen for an hour, although it was put right at once."""
    for entry in status.clusters:
        cluster = clusters.get(entry.name)
        for part in cluster.status.applied if cluster is not None else ():
            at = part.repaired_at
            if at is not None and is_part_of(part.name, project.name) and now - at < timedelta(seconds=DRIFT_SHOWN_S):
                told = f"{entry.name}: put right at {format_time(at)}: {part.repaired}"[:1024]
                status.set_condition(DRIFTED, True, "Repaired", told, now, project.metadata.generation)
                return
    if status.condition(DRIFTED) is not None:
        status.set_condition(DRIFTED, False, "AsItShouldBe", "", now, project.metadata.generation)


def _set_applied(project: Project, status: ProjectStatus, now: datetime) -> None:
    total, generation = len(status.clusters), project.metadata.generation
    failed = [c for c in status.clusters if c.state == "Failed"]
    pending = [c for c in status.clusters if c.state == "Pending"]
    done = f"{total - len(failed) - len(pending)} of {total} clusters hold what the project says"
    if failed:
        status.set_condition(APPLIED, False, "Failed", f"{done}; {failed[0].name}: {failed[0].message}"[:1024], now, generation)  # fmt: skip
    elif pending:
        status.set_condition(APPLIED, False, "Pending", f"{done}; {pending[0].name}: {pending[0].message}"[:1024], now, generation)  # fmt: skip
    else:
        status.set_condition(APPLIED, True, "Applied", done, now, generation)
