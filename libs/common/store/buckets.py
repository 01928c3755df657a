"""The buckets: one table of what each is in JetStream, and the check at start that it is so.

The owner of a bucket calls `ensure_bucket` when it starts; readers wait until it has. Changes of this table reach existing
buckets at the owner's next start, but nothing is ever made smaller by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from libs.common import errors
from libs.common.bus.jetstream_api import NO_STORAGE, SECOND_NS, STREAM_EXISTS, STREAM_NOT_FOUND, JetStreamApi, Refused
from libs.common.contracts.permissions import SHORT_LIVED, stream_of
from libs.common.resources.registry import BUCKETS

MB = 1024 * 1024
MARKER_TTL_S = 24 * 3600
"""How long the server's own tombstone of an entry whose time ran out stays."""


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """What differs between buckets. `max_bytes` bounds what a runaway writer can take; beyond it writes are Unavailable.

    The server sets `max_bytes` aside, so that no other stream can take a bucket's room.
    """

    name: str
    max_bytes: int = 512 * MB
    max_value_bytes: int = 768 * 1024
    marker_ttl_s: int = MARKER_TTL_S

    @property
    def stream(self) -> str:
        return stream_of(self.name)

    def to_config(self, replicas: int) -> dict[str, Any]:
        """The stream's configuration as JetStream's API wants it."""
        return {
            "name": self.stream,
            "description": f"Herdsman's bucket {self.name}",
            "subjects": [f"$KV.{self.name}.>"],
            "storage": "file",
            "num_replicas": replicas,
            "retention": "limits",
            "discard": "new",  # a full bucket refuses writes; dropping the oldest would lose objects
            "max_bytes": self.max_bytes,
            "max_msg_size": self.max_value_bytes,
            "max_msgs_per_subject": 1,  # only the last entry means anything; older ones would be copies nobody reads
            "max_age": 0,
            "allow_atomic": True,
            "allow_direct": False,  # a follower's answer may be older than a write that was acknowledged
            "allow_msg_ttl": True,
            "subject_delete_marker_ttl": self.marker_ttl_s * SECOND_NS,  # without it watches don't see an entry expire
            # The server insists on roll-ups where it writes tombstones itself. A roll-up header wipes a bucket, so nobody
            # but the owner may publish to it at all (`contracts.permissions`).
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "deny_purge": False,
            "duplicate_window": 120 * SECOND_NS,
            "compression": "none",
        }


SPECS: Mapping[str, BucketSpec] = {
    **{name: BucketSpec(name) for name in BUCKETS},
    **{name: BucketSpec(name, max_bytes=64 * MB, marker_ttl_s=300) for name in SHORT_LIVED},
}
MIN_BYTES = 16 * MB
_NEVER_SMALLER = ("max_bytes", "max_msg_size", "num_replicas")
_IMMUTABLE = ("storage", "retention", "subjects", "max_msgs_per_subject")


async def ensure_bucket(api: JetStreamApi, bucket: str, *, replicas: int = 1, timeout_s: float = 5.0) -> None:
    """Make the bucket, or bring an existing one's configuration up to the table. Idempotent.

    Where the server has less room than the table wants, the bucket is made smaller, with a warning. Raises Conflict when an
    existing one differs in what cannot be changed, or would have to shrink; the store's errors.
    """
    spec = SPECS.get(bucket, BucketSpec(bucket))
    wanted = spec.to_config(replicas)
    try:
        info = await api.call(f"STREAM.INFO.{spec.stream}", timeout_s=timeout_s)
    except Refused as exc:
        if exc.code != STREAM_NOT_FOUND:
            raise
        await _create(api, bucket, wanted, timeout_s)
        info = await api.call(f"STREAM.INFO.{spec.stream}", timeout_s=timeout_s)
    await _update(api, bucket, info["config"], wanted, timeout_s)


async def _create(api: JetStreamApi, bucket: str, wanted: dict[str, Any], timeout_s: float) -> None:
    log = structlog.get_logger().bind(logger="store", bucket=bucket)
    max_bytes = int(wanted["max_bytes"])
    while True:
        try:
            await api.call(f"STREAM.CREATE.{wanted['name']}", {**wanted, "max_bytes": max_bytes}, timeout_s)
        except Refused as exc:
            if exc.code == STREAM_EXISTS:  # another replica was faster
                return
            if exc.code != NO_STORAGE or max_bytes // 2 < MIN_BYTES:
                raise
            max_bytes //= 2
        else:
            log.info("bucket_created", max_bytes=max_bytes)
            if max_bytes < wanted["max_bytes"]:
                log.warning(
                    "bucket_is_small", max_bytes=max_bytes, wanted=wanted["max_bytes"], advice="free disk space"
                )
            return


async def _update(
    api: JetStreamApi, bucket: str, have: Mapping[str, Any], wanted: dict[str, Any], timeout_s: float
) -> None:
    log = structlog.get_logger().bind(logger="store", bucket=bucket)
    differing = diff_config(have, wanted)
    if not differing:
        return
    fixed = [name for name in differing if name in _IMMUTABLE]
    smaller = [name for name in differing if name in _NEVER_SMALLER and wanted[name] < have.get(name, 0)]
    if fixed or smaller:
        what = ", ".join(f"{name} is {have.get(name)!r} and should be {wanted[name]!r}" for name in [*fixed, *smaller])
        raise errors.Conflict(
            f'bucket "{bucket}" cannot be changed to what this version wants: {what}; back up and restore'
        )
    # Fields that this version does not know stay as they are.
    target = {**have, **wanted}
    try:
        await api.call(f"STREAM.UPDATE.{wanted['name']}", target, timeout_s)
    except Refused as exc:
        if exc.code != NO_STORAGE or "max_bytes" not in differing:
            raise
        log.warning("bucket_stays_small", max_bytes=have.get("max_bytes"), advice="free disk space")
        differing.remove("max_bytes")
        if not differing:
            return
        await api.call(f"STREAM.UPDATE.{wanted['name']}", {**target, "max_bytes": have["max_bytes"]}, timeout_s)
    log.info("bucket_updated", changed=differing)


def diff_config(have: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names of the settings that differ. The server leaves out what is zero, false or none."""
    empty: tuple[Any, ...] = (None, 0, False, "none", [])
    return [
        name
        for name, value in wanted.items()
        if have.get(name) != value and not (have.get(name) in empty and value in empty)
    ]
