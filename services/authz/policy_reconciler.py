"""Writes the status of policies, and forgets trials of policies and clusters that are gone. Keys are `<Kind>/<name>` of policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from libs.common import errors
from libs.common.policies.choice import ADMISSION_PARTS, POD_SECURITY_PARTS
from libs.common.reconcile import DONE, After, Outcome
from libs.common.resources import codec
from libs.common.resources.clusters import Cluster
from libs.common.resources.policies import AdmissionPolicy, PodSecurityTemplate, PolicyTrial
from libs.common.resources.registry import BY_MODEL, BY_PLURAL
from libs.common.store.base import Store
from libs.common.store.objects import Objects, encode_last, modify
from services.authz.policy_status import Policy, next_change, render_status

if TYPE_CHECKING:
    from libs.common.store.informer import Change

MODELS: Mapping[str, type[Policy]] = {"AdmissionPolicy": AdmissionPolicy, "PodSecurityTemplate": PodSecurityTemplate}

_KINDS: Mapping[str, str] = {ADMISSION_PARTS: "AdmissionPolicy", POD_SECURITY_PARTS: "PodSecurityTemplate"}


class PolicyReconciler:
    """`policies` by kind. Of replicas that all know the same, one writes and the others find it written."""

    def __init__(
        self, store: Store, policies: Mapping[str, Objects[Any]], clusters: Objects[Cluster], trials: Objects[PolicyTrial],
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._store = store
        self._policies = policies
        self._clusters = clusters
        self._trials = trials
        self._now = now

    async def reconcile(self, key: str) -> Outcome:
        kind, _, name = key.partition("/")
        policy: Policy | None = self._policies[kind].get(name)
        clusters = {c.name: c for c in self._clusters.all()}
        trials = self._sorted_trials(kind, name)
        kept: dict[str, PolicyTrial] = {}
        uids = {c.uid for c in clusters.values()}
        for trial in trials:
            if policy is not None and trial.spec.policy_uid == policy.uid and trial.spec.cluster_uid in uids:
                kept[trial.spec.cluster_uid] = trial
            else:
                await self._forget(trial)
        if policy is None:
            return DONE
        wanted = render_status(policy, clusters.values(), kept, self._now())
        if wanted != policy.status:
            uid = policy.uid

            def mutate(current: Any) -> bool:
                status = render_status(current, clusters.values(), kept, self._now())
                if current.uid != uid or status == current.status:
                    return False
                current.status = status
                return True

            try:
                await modify(self._store, MODELS[kind], name, mutate, now=self._now)
            except errors.NotFound:
                return DONE
        again = next_change(wanted, policy, clusters, self._now())
        return DONE if again is None else After(again)

    def _sorted_trials(self, kind: str, policy: str) -> list[PolicyTrial]:
        found = [t for t in self._trials.all() if t.spec.policy == policy and t.spec.policy_kind == kind]
        return sorted(found, key=lambda t: t.name)

    async def _forget(self, trial: PolicyTrial) -> None:
        revision = int(trial.metadata.resource_version or 0)
        try:
            await self._store.delete(BY_MODEL[PolicyTrial].key(trial.name), encode_last(trial), revision)
        except errors.NotFound:
            return


def keys_of_policy(change: Change) -> Iterable[str]:
    plural, _, name = change.key.partition(".")
    return (f"{BY_PLURAL[plural].kind}/{name}",)


def keys_of_trial(change: Change) -> Iterable[str]:
    entry = change.after or change.before
    if entry is None:
        return ()
    trial = codec.decode(PolicyTrial, entry.value, entry.revision)
    return (f"{trial.spec.policy_kind}/{trial.spec.policy}",)


def keys_of_cluster(policies: Mapping[str, Objects[Any]]) -> Callable[[Change], Iterable[str]]:
    """The policies of which a cluster says something else, and all when it is another cluster to policies; heartbeats are nothing."""

    def keys(change: Change) -> Iterable[str]:
        before, after = (
            codec.decode(Cluster, entry.value, entry.revision) if entry is not None else None
            for entry in (change.before, change.after)
        )
        if before is None or after is None or _facts(before) != _facts(after):
            return [f"{kind}/{name}" for kind, objects in policies.items() for name in objects.names()]
        was, is_ = _said(before), _said(after)
        told = [_policy_of(part) for part in sorted(was.keys() | is_.keys()) if was.get(part) != is_.get(part)]
        return [f"{kind}/{name}" for kind, name in told if policies[kind].get(name) is not None]

    return keys


def _facts(cluster: Cluster) -> object:
    """What decides about all policies."""
    connected = cluster.status.condition("Connected")
    return (
        cluster.uid,
        cluster.deleting,
        dict(cluster.metadata.labels or {}),
        connected.status if connected else "",
        cluster.status.agent.username,
    )


def _said(cluster: Cluster) -> dict[str, object]:
    """Part of a policy → what the cluster says of it."""
    return {
        p.name: (p.hash, p.error, p.remarks, p.repaired_at)
        for p in cluster.status.applied
        if p.name.startswith(tuple(_KINDS))
    }


def _policy_of(part: str) -> tuple[str, str]:
    """Kind and name of the policy that a part is of."""
    prefix = next(p for p in _KINDS if part.startswith(p))
    return _KINDS[prefix], part.removeprefix(prefix)
