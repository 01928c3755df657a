"""What agents ask: a fresh credential, the desired set; and what they report. The cluster is who the subject says, never the payload.

An agent's credential confines it to subjects with its own cluster's uid, so the first token of the subject is proof.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog

from libs.common import errors
from libs.common.bus.base import Message
from libs.common.contracts.messages import (
    AgentCredential,
    AgentRenewal,
    AppliedReport,
    DesiredQuery,
    DesiredSet,
    Empty,
    Heartbeat,
)
from libs.common.resources.clusters import Cluster
from libs.common.store.base import Store
from libs.common.store.objects import modify
from services.cluster_controller.credentials import Issuer
from services.cluster_controller.desired import DesiredSets
from services.cluster_controller.liveness import Liveness
from services.cluster_controller.model import departed_key
from services.cluster_controller.rules import DETACHED, merge_reports
from services.cluster_controller.store import close_departed
from services.cluster_controller.view import Clusters

AGENT_DETACHED = "agent_detached"
DRIFT_REPAIRED = "drift_repaired"
RENEWAL_REFUSED = "agent_renewal_refused"
MAX_LEFT_SHOWN = 20
log = structlog.get_logger(__name__)


class Agents:
    """Handlers of renew, desired, applied and of heartbeats. `enqueue` takes a cluster's name and has it reconciled."""

    def __init__(
        self, store: Store, clusters: Clusters, desired: DesiredSets, issuer: Issuer, liveness: Liveness,
        enqueue: Callable[[str], None], now: Callable[[], datetime], monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        self._store = store
        self._clusters = clusters
        self._desired = desired
        self._issuer = issuer
        self._liveness = liveness
        self._enqueue = enqueue
        self._now = now
        self._monotonic = monotonic

    async def handle_renew(self, request: AgentRenewal, message: Message) -> AgentCredential:
        """A fresh JWT for the registered key, for no other: an agent cannot have a key of its choice certified. Raises Denied, NotFound."""
        cluster = self._access(message)
        if request.public_key and request.public_key != cluster.status.agent.public_key:
            log.warning(RENEWAL_REFUSED, cluster=cluster.name, cluster_id=cluster.uid)
            raise errors.Denied(
                f'another agent has registered for cluster "{cluster.name}" since: stop this one, or register it with a fresh token'
            )
        return self._issuer.issue(cluster, cluster.status.agent.public_key)

    async def handle_desired(self, request: DesiredQuery, message: Message) -> DesiredSet:
        """What differs from what the agent has. Raises NotFound for a cluster that the hub does not know: keep what you have."""
        uid = message.tokens[0]
        cluster = self._clusters.by_uid(uid)
        if (cluster is not None and cluster.deleting) or (cluster is None and await self._has_departed(uid)):
            return DesiredSet(hash="", names=[], parts=[], detach=True)
        if cluster is None:
            raise errors.NotFound(f'the hub knows no cluster with uid "{uid}"')
        return self._desired.select(cluster.name, request.have)

    async def handle_applied(self, request: AppliedReport, message: Message) -> Empty:
        """Note what the cluster accepted, or that nothing of ours is left in it. Raises NotFound, Conflict."""
        uid = message.tokens[0]
        if self._clusters.by_uid(uid) is None:
            if request.detached and await close_departed(self._store, uid, self._now()):
                log.info(AGENT_DETACHED, cluster_id=uid, left=len(request.left), forced=True)
            return Empty()
        cluster = self._access(message)
        if request.detached:
            await self._note_detached(cluster, request)
        else:
            await self._note_parts(cluster, request)
        self._enqueue(cluster.name)
        return Empty()

    async def listen_heartbeat(self, heartbeat: Heartbeat, message: Message) -> None:
        """Take a sign of life; one for a cluster that nobody knows is nothing."""
        cluster_name = self._clusters.name_of(message.tokens[0])
        if cluster_name is not None and self._liveness.hear(message.tokens[0], heartbeat, self._monotonic()):
            self._enqueue(cluster_name)

    async def _note_detached(self, cluster: Cluster, report: AppliedReport) -> None:
        now = self._now()
        shown = ", ".join(report.left[:MAX_LEFT_SHOWN])
        text = (
            f"the agent could not remove: {shown}" if report.left else "the agent has removed everything that it owned"
        )

        def mutate(current: Cluster) -> bool:
            # A report only counts for the cluster that asked for it: not for one that was made again under the name.
            if current.uid != cluster.uid or not current.deleting:
                return False
            current.status.applied = []
            reason = "LeftBehind" if report.left else "NothingLeft"
            return current.status.set_condition(DETACHED, True, reason, text, now, current.metadata.generation)

        await modify(self._store, Cluster, cluster.name, mutate, now=self._now)
        log.info(AGENT_DETACHED, cluster=cluster.name, cluster_id=cluster.uid, left=len(report.left), forced=False)

    async def _note_parts(self, cluster: Cluster, report: AppliedReport) -> None:
        now = self._now()

        def mutate(current: Cluster) -> bool:
            merged = merge_reports(current.status.applied, report.parts, now)
            if current.uid != cluster.uid or merged == current.status.applied:
                return False
            current.status.applied = merged
            return True

        seen = {part.name: part.repairs for part in cluster.status.applied}
        await modify(self._store, Cluster, cluster.name, mutate, now=self._now)
        for part in report.parts:
            if part.repairs and part.repairs != seen.get(part.name):
                log.warning(
                    DRIFT_REPAIRED, cluster=cluster.name, cluster_id=cluster.uid, part=part.name, objects=part.repaired
                )

    def _access(self, message: Message) -> Cluster:
        uid = message.tokens[0]
        cluster = self._clusters.by_uid(uid)
        if cluster is None:
            raise errors.NotFound(f'the hub knows no cluster with uid "{uid}"')
        if not cluster.status.agent.public_key:
            raise errors.Denied(f'no agent has registered for cluster "{cluster.name}"')
        return cluster

    async def _has_departed(self, uid: str) -> bool:
        try:
            await self._store.get(departed_key(uid))
        except (errors.NotFound, ValueError):
            return False
        return True
