"""What agents report of trials: one PolicyTrial for each policy and cluster, the newest alone. The cluster is who the subject says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from libs.common import errors
from libs.common.bus.base import Message
from libs.common.contracts.messages import Empty, TrialReport
from libs.common.policies.choice import trial_id
from libs.common.resources.clusters import Cluster
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.policies import Offender, PolicyTrial, PolicyTrialSpec, PolicyTrialStatus
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Store
from libs.common.store.objects import Objects, encode_unique, modify

_SHORT = {"AdmissionPolicy": "admission", "PodSecurityTemplate": "pod-security"}
MAX_OFFENDERS = 50


def trial_name(kind: str, policy: str, cluster: str) -> str:
    return f"{_SHORT[kind]}.{policy}.{cluster}"


class Trials:
    """Handler of `trial`. What an agent says of other policies than there are, or of another version, is nothing."""

    def __init__(
        self, store: Store, policies: Mapping[str, Objects[Any]], clusters: Objects[Cluster], now: Callable[[], datetime]
    ) -> None:  # fmt: skip
        self._store = store
        self._policies = policies
        self._clusters = clusters
        self._now = now

    async def handle(self, report: TrialReport, message: Message) -> Empty:
        """Note what a cluster says. Raises NotFound for a cluster or policy that is not (any more), Conflict for an old version."""
        uid = message.tokens[0]
        cluster = next((c for c in self._clusters.all() if c.uid == uid), None)
        if cluster is None:
            raise errors.NotFound(f'the hub knows no cluster with uid "{uid}"')
        objects = self._policies.get(report.policy_kind)
        policy = objects.get(report.policy) if objects is not None else None
        if policy is None or policy.uid != report.policy_uid:
            raise errors.NotFound(f'the hub has no such policy "{report.policy}" any more')
        if trial_id(policy) != report.trial:
            raise errors.Conflict(f'policy "{report.policy}" has changed since this trial began')
        status = PolicyTrialStatus(
            generation=report.generation, at=self._now(), looked=report.looked, violations=report.violations, untried=report.untried,
            complete=report.complete, message=report.message,
            offenders=[Offender.model_validate(o.model_dump()) for o in report.offenders[:MAX_OFFENDERS]],
        )  # fmt: skip
        spec = PolicyTrialSpec.model_validate(
            {
                "policy_kind": report.policy_kind, "policy": report.policy, "policy_uid": report.policy_uid,
                "cluster": cluster.name, "cluster_uid": uid,
            }
        )  # fmt: skip
        await self._write(trial_name(report.policy_kind, report.policy, cluster.name), spec, status)
        return Empty()

    async def _write(self, name: str, spec: PolicyTrialSpec, status: PolicyTrialStatus) -> None:
        def mutate(current: PolicyTrial) -> bool:
            current.spec, current.status = spec, status
            return True

        try:
            await modify(self._store, PolicyTrial, name, mutate, now=self._now)
        except errors.NotFound:
            metadata = ObjectMeta(name=name, uid=str(uuid4()), creation_timestamp=self._now(), generation=1)
            made = PolicyTrial(metadata=metadata, spec=spec, status=status)
            # Two replicas asked at once by one agent: the second hears AlreadyExists, and the agent reports again.
            await self._store.create(BY_MODEL[PolicyTrial].key(name), encode_unique(made))
