"""Which policies a cluster should hold, and who may change that by labels. The read side of what authz owns, from informers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from libs.common import errors
from libs.common.apiserver.strategy import WriteContext
from libs.common.policies.admission import render_admission
from libs.common.policies.choice import is_chosen, part_of, trial_id
from libs.common.policies.pod_security import render_pod_security
from libs.common.resources import codec
from libs.common.resources.clusters import Cluster
from libs.common.resources.policies import AdmissionPolicy, PodSecurityTemplate
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Entry
from libs.common.store.informer import Change, Informer
from services.cluster_controller.view import Clusters

Policy = AdmissionPolicy | PodSecurityTemplate
POLICY_UNREADABLE = "policy_unreadable"
_MODELS: Mapping[str, type[AdmissionPolicy] | type[PodSecurityTemplate]] = {
    BY_MODEL[model].plural: model for model in (AdmissionPolicy, PodSecurityTemplate)
}
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PolicyPart:
    """`version`: the same for the same content."""

    version: object
    render: Callable[[], list[dict[str, Any]]]


class Policies:
    """All living policies. One that cannot be read counts nowhere, as if it were not there, and the log says so."""

    def __init__(self, clusters: Clusters, *informers: Informer) -> None:
        self._clusters = clusters
        self._policies: dict[str, Policy] = {}
        self._ends = [informer.subscribe(self._follow, replay=True) for informer in informers]

    def all(self) -> Iterable[Policy]:
        return self._policies.values()

    def agent_of(self, cluster: str) -> str:
        """Whom the cluster takes its agent for; empty = it has not said."""
        found = self._clusters.get(cluster)
        return found.status.agent.username if found is not None else ""

    def parts(self, cluster: str) -> dict[str, PolicyPart]:
        """Part name → policy. None before the cluster's agent has said who it is there: a policy must not shut it out."""
        found, username = self._clusters.get(cluster), self.agent_of(cluster)
        if found is None or not username:
            return {}
        labels = found.metadata.labels or {}
        return {
            part_of(policy.KIND, policy.name): _part(policy, username)
            for policy in self._policies.values()
            if is_chosen(policy.spec.clusters, cluster, labels)
        }

    def touched(self, change: Change) -> Iterator[str]:
        """Names of the clusters that hold something else after this change of a policy."""
        before, after = _read(change.before), _read(change.after)
        if before is not None and after is not None and _version(before) == _version(after):
            return
        for name in self._clusters.names():
            cluster = self._clusters.get(name)
            labels = (cluster.metadata.labels or {}) if cluster is not None else {}
            if any(p is not None and is_chosen(p.spec.clusters, name, labels) for p in (before, after)):
                yield name

    def close(self) -> None:
        for end in self._ends:
            end()

    def _follow(self, change: Change) -> None:
        if change.key.partition(".")[0] not in _MODELS:
            return
        policy = _read(change.after)
        if policy is None:
            self._policies.pop(change.key, None)
        else:
            self._policies[change.key] = policy


def check_labels(policies: Iterable[Policy], ctx: WriteContext, old: Cluster, new: Cluster) -> None:
    """Labels that have a policy begin or cease to count in the cluster take the right to change that policy. Raises Denied.

    To cease is the escalation, and to begin is to forbid others what they do: neither comes with the right to label a cluster.
    """
    before, after = old.metadata.labels or {}, new.metadata.labels or {}
    if before == after:
        return
    for policy in policies:
        was, is_ = (is_chosen(policy.spec.clusters, new.name, labels) for labels in (before, after))
        plural = BY_MODEL[type(policy)].plural
        if was != is_ and not ctx.grants.is_allowed(ctx.principal, "update", plural, policy.name):
            raise errors.Denied(
                f'cannot change the labels of cluster "{new.name}": the {policy.KIND} "{policy.name}" would '
                f"{'begin' if is_ else 'cease'} to count in it, which takes the right to update {plural}",
                kind="Cluster", name=new.name,
            )  # fmt: skip


def _part(policy: Policy, username: str) -> PolicyPart:
    if isinstance(policy, AdmissionPolicy):
        admission = policy
        return PolicyPart((_version(policy), username), lambda: render_admission(admission, username))
    template = policy
    return PolicyPart(_version(policy), lambda: render_pod_security(template))


def _version(policy: Policy) -> object:
    return policy.uid, policy.metadata.generation, trial_id(policy)


def _read(entry: Entry | None) -> Policy | None:
    if entry is None:
        return None
    plural, _, name = entry.key.partition(".")
    try:
        policy = codec.decode(_MODELS[plural], entry.value, entry.revision)
    except (errors.HerdsmanError, ValueError) as exc:
        log.error(POLICY_UNREADABLE, kind=plural, name=name, error=str(exc))
        return None
    return None if policy.deleting else policy
