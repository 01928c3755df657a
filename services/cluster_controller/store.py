"""What changes together: each function is one atomic batch in the bucket, so that no crash leaves half of it."""

from __future__ import annotations

from datetime import datetime

from libs.common import errors
from libs.common.resources.clusters import Cluster, RegistrationToken
from libs.common.resources.meta import Resource
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Put, Store
from libs.common.store.objects import encode_last, encode_unique
from services.cluster_controller.model import FINALIZER, Departed, Revocation, departed_key, parse_departed


async def save_registration(
    store: Store, token: RegistrationToken, cluster: Cluster, replaced_key: str, now: datetime
) -> None:
    """The token is used, the cluster has its agent's key, and the key before it is revoked. Raises Conflict: read again."""
    writes = [_update(token), _update(cluster)]
    if replaced_key:
        writes.append(_record(Revocation(replaced_key, now)))
    await store.batch(writes)


async def release_cluster(store: Store, cluster: Cluster, *, abandoned: bool, now: datetime) -> None:
    """The cluster loses our finalizer and, when it was the last, is gone; with it its agent's key.

    `abandoned`: its agent has not cleaned up. Its key then stays good until its JWT expires, so that it can be told to
    detach when it comes back; for a cluster that is gone such a key is good for nothing else. Raises Conflict: read again.
    """
    kept = [f for f in cluster.metadata.finalizers or () if f != FINALIZER]
    last = cluster.model_copy(update={"metadata": cluster.metadata.model_copy(update={"finalizers": kept or None})})
    writes = [_update(last) if kept else _tombstone(last)]
    key = cluster.status.agent.public_key
    if key:
        writes.append(_record(Departed(cluster.uid, cluster.name, key, now) if abandoned else Revocation(key, now)))
    await store.batch(writes)


async def close_departed(store: Store, uid: str, now: datetime) -> bool:
    """The agent of an abandoned cluster has detached after all: revoke its key, forget it. Returns whether there was one."""
    try:
        entry = await store.get(departed_key(uid))
    except errors.NotFound:
        return False
    departed = parse_departed(entry.value)
    await store.batch(
        [Put(entry.key, entry.value, entry.revision, deleted=True), _record(Revocation(departed.public_key, now))]
    )
    return True


def _update(resource: Resource) -> Put:
    return Put(_key(resource), encode_unique(resource), int(resource.metadata.resource_version or 0))


def _tombstone(resource: Resource) -> Put:
    return Put(_key(resource), encode_last(resource), int(resource.metadata.resource_version or 0), deleted=True)


def _record(record: Departed | Revocation) -> Put:
    return Put(record.key, record.pack())


def _key(resource: Resource) -> str:
    return BY_MODEL[type(resource)].key(resource.name)
