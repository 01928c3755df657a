"""Plain streams: facts that are kept for a while and worked off by durable consumers, each at least once.

For what is no state: audit events, observations in bulk, jobs. State lives in buckets (`libs.common.store`), whose watches need
none of this. What a consumer gives up on goes to the dead letters (`dead_letters`) with the history of its errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from libs.common import errors
from libs.common.bus.jetstream_api import SECOND_NS, STREAM_EXISTS, STREAM_NOT_FOUND, JetStreamApi, Refused

MESSAGE_ID = "Nats-Msg-Id"


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream as we want it. `max_bytes` is set aside by the server and must be there: no stream may fill the disk."""

    name: str
    subjects: tuple[str, ...]
    max_bytes: int
    max_age_s: int
    when_full: Literal["drop oldest", "refuse"] = "drop oldest"
    storage: Literal["file", "memory"] = "file"
    compressed: bool = True
    per_subject: int = -1
    """How many messages of one subject are kept; 1 = only the latest."""
    append_only: bool = False
    """True: not even an administrator deletes single messages."""
    duplicate_window_s: int = 120

    def to_config(self, replicas: int) -> dict[str, Any]:
        """The stream's configuration as JetStream's API wants it. Nobody may roll it up: a header would empty it."""
        return {
            "name": self.name,
            "subjects": list(self.subjects),
            "storage": self.storage,
            "num_replicas": replicas,
            "retention": "limits",
            "discard": "old" if self.when_full == "drop oldest" else "new",
            "max_bytes": self.max_bytes,
            "max_age": self.max_age_s * SECOND_NS,
            "max_msgs_per_subject": self.per_subject,
            "duplicate_window": min(self.duplicate_window_s, self.max_age_s) * SECOND_NS,
            "compression": "s2" if self.compressed and self.storage == "file" else "none",
            "allow_direct": False,
            "allow_rollup_hdrs": False,
            "allow_msg_ttl": False,
            "deny_delete": self.append_only,
            "deny_purge": self.append_only,
        }


async def ensure_stream(api: JetStreamApi, spec: StreamSpec, *, replicas: int = 1) -> None:
    """Make the stream or bring its settings up to date; idempotent. Raises Refused, among others where it would not fit."""
    wanted = spec.to_config(replicas)
    try:
        info = await api.call(f"STREAM.INFO.{spec.name}")
    except Refused as exc:
        if exc.code != STREAM_NOT_FOUND:
            raise
        try:
            await api.call(f"STREAM.CREATE.{spec.name}", wanted, 5.0)
        except Refused as raced:
            if raced.code != STREAM_EXISTS:
                raise
        else:
            structlog.get_logger().info("stream_created", stream=spec.name, logger="streams")
        return
    have: Mapping[str, Any] = info["config"]
    if any(have.get(name) != value and (have.get(name) or value) for name, value in wanted.items()):
        await api.call(f"STREAM.UPDATE.{spec.name}", {**have, **wanted}, 5.0)
        structlog.get_logger().info("stream_updated", stream=spec.name, logger="streams")


async def append(api: JetStreamApi, subject: str, data: bytes, *, message_id: str, timeout_s: float = 2.0) -> int:
    """Store one message, once for each `message_id` within the stream's window. Returns its sequence.

    An id must not be guessable by others who write to the stream: whoever uses it first suppresses the other. Raises as
    `JetStreamApi.publish`; after Timeout the same call may be made again.
    """
    if not message_id:
        raise errors.Internal("a message without an id would be stored twice when its answer is lost")
    return await api.publish(subject, data, {MESSAGE_ID: message_id}, timeout_s)
