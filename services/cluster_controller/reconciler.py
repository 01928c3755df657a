"""One cluster made right: its status says what is known, its agent is told when something changed, and its deletion moves on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

import structlog

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.contracts import subjects
from libs.common.contracts.messages import Notice
from libs.common.kube.objects import set_hash
from libs.common.reconcile import DONE, After, Outcome
from libs.common.resources.clusters import Cluster, RegistrationToken
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Store
from libs.common.store.objects import Objects, encode_last, modify, read
from services.cluster_controller.desired import DesiredSets
from services.cluster_controller.liveness import Liveness
from services.cluster_controller.render_projects import PARTS_PREFIX
from services.cluster_controller.rules import DETACHED, Known, decide_release, has_our_finalizer, update_status
from services.cluster_controller.store import release_cluster
from services.cluster_controller.view import Clusters

NOTICE_AGAIN_S = 10.0
SPREAD_EACH_S = 0.002
"""How long the answer to one agent's question may take: those of all are spread over so long for each."""
SPREAD_LIMIT_S = 2.0
CLUSTER_RELEASED = "cluster_released"
CLUSTER_DISCONNECTED = "cluster_disconnected"
CLUSTER_CONNECTED = "cluster_connected"
log = structlog.get_logger(__name__)


class ClusterReconciler:
    """`reconcile(name)` for the key queue. Reads everything again each time; what it remembers only saves notices."""

    def __init__(
        self, store: Store, clusters: Clusters, tokens: Objects[RegistrationToken], desired: DesiredSets, liveness: Liveness, bus: Bus,
        now: Callable[[], datetime], monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        self._store = store
        self._clusters = clusters
        self._tokens = tokens
        self._desired = desired
        self._liveness = liveness
        self._bus = bus
        self._now = now
        self._monotonic = monotonic
        self._told: dict[str, tuple[str, str]] = {}
        """Cluster uid → hash of the desired set, and of what many clusters have alike, in the last notice."""

    async def reconcile(self, name: str) -> Outcome:
        cluster = self._clusters.get(name)
        if cluster is None:
            self._desired.forget(name)
            return DONE
        if cluster.deleting:
            return await self._reconcile_deletion(cluster)
        desired = self._desired.hashes(name)
        # First who waits for it, then who reads about it.
        await self._tell(cluster.uid, desired)
        await self._write_status(cluster, self._known(cluster.uid, desired))
        return DONE

    async def _tell(self, uid: str, desired: Mapping[str, str]) -> None:
        """Tell the agent, once, that its cluster should hold something else."""
        beat, told = self._liveness.heartbeat(uid), self._told.get(uid)
        shared = {name: hash_ for name, hash_ in desired.items() if not name.startswith(PARTS_PREFIX)}
        now = (set_hash(desired), set_hash(shared))
        if beat is None:
            # Whoever comes back asks by itself.
            self._told.pop(uid, None)
        elif told is None or told[0] != now[0]:
            # What the heartbeat says may be older than what was told last, so it only counts before anything was told.
            if told is not None or (beat.applied_set or set_hash(beat.applied)) != now[0]:
                # Roles and policies are the same in many clusters: all agents are told of them at once. A project waits for nobody.
                everywhere = told is None or told[1] != now[1]
                spread_s = min(SPREAD_LIMIT_S, len(self._clusters) * SPREAD_EACH_S) if everywhere else 0.0
                await self._bus.publish(subjects.notice(uid), Notice(hash=now[0], spread_s=spread_s))
            self._told[uid] = now

    async def _reconcile_deletion(self, cluster: Cluster) -> Outcome:
        connected = self._liveness.heartbeat(cluster.uid) is not None
        release = decide_release(cluster, connected)
        if release.ready and has_our_finalizer(cluster):
            await self._release(cluster.name, cluster.uid)
            return DONE
        if release.ready:
            return DONE  # somebody else's finalizer holds it
        now = self._now()

        def say(current: Cluster) -> bool:
            if current.uid != cluster.uid or not current.deleting:
                return False
            said = current.status.set_condition(
                DETACHED, False, release.reason, release.message, now, current.metadata.generation
            )
            return update_status(current, self._known(current.uid, {}), now) or said

        if say(cluster.model_copy(deep=True)):
            await modify(self._store, Cluster, cluster.name, say, now=self._now)
        if not connected:
            return DONE  # its next heartbeat brings it back here
        await self._bus.publish(subjects.notice(cluster.uid), Notice())
        return After(NOTICE_AGAIN_S)

    async def _release(self, name: str, uid: str) -> None:
        """Registration tokens first: none may outlive the cluster that it lets somebody in for."""
        for token in self._tokens.all():
            if token.spec.cluster_uid == uid:
                await delete_token(self._store, token.name)
        try:
            cluster = await read(self._store, Cluster, name)
        except errors.NotFound:
            return
        # Decided again on what the store says now, because the batch is for exactly that.
        release = decide_release(cluster, connected=False)
        if cluster.uid != uid or not cluster.deleting or not release.ready or not has_our_finalizer(cluster):
            return
        await release_cluster(self._store, cluster, abandoned=release.abandoned, now=self._now())
        self._liveness.forget(uid)
        self._told.pop(uid, None)
        log.info(CLUSTER_RELEASED, cluster=name, cluster_id=uid, reason=release.reason, detail=release.message)

    async def _write_status(self, cluster: Cluster, known: Known) -> None:
        """Write the status when it is not what it should be. The copy tells so first: most looks end there, without a read."""
        phase = cluster.status.phase
        if not update_status(cluster, known, self._now()):
            return

        def mutate(current: Cluster) -> bool:
            return current.uid == cluster.uid and not current.deleting and update_status(current, known, self._now())

        try:
            stored = await modify(self._store, Cluster, cluster.name, mutate, now=self._now)
        except errors.NotFound:
            return
        if stored.status.phase != phase:
            event = CLUSTER_CONNECTED if known.heartbeat is not None else CLUSTER_DISCONNECTED
            log.info(event, cluster=cluster.name, cluster_id=cluster.uid, phase=stored.status.phase, before=phase)

    def _known(self, uid: str, desired: dict[str, str]) -> Known:
        return Known(self._liveness.heartbeat(uid), self._liveness.knows(self._monotonic()), desired)


async def delete_token(store: Store, name: str) -> None:
    """Delete a registration token, whatever happens to it meanwhile."""
    key = BY_MODEL[RegistrationToken].key(name)
    try:
        token = await read(store, RegistrationToken, name)
        await store.delete(key, encode_last(token), int(token.metadata.resource_version or 0))
    except errors.NotFound:
        return


async def watch_liveness(
    clusters: Clusters,
    liveness: Liveness,
    bus: Bus,
    add: Callable[[str], None],
    monotonic: Callable[[], float],
    every_s: float = 1.0,
) -> None:
    """Have every cluster looked at that falls silent, for ever. While the bus is away nobody is blamed for silence."""
    was_connected, was_sure = True, False
    while True:
        if not bus.connected:
            was_connected, was_sure = False, False
        else:
            if not was_connected:
                liveness.resume(monotonic())
                was_connected = True
            for uid in liveness.expire(monotonic()):
                name = clusters.name_of(uid)
                if name is not None:
                    add(name)
            sure = liveness.knows(monotonic())
            if sure and not was_sure:
                # Those who were there before this process, or before the bus went, and have not come back.
                for name in clusters.names():
                    add(name)
            was_sure = sure
        await asyncio.sleep(every_s)
