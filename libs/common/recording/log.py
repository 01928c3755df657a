"""Where recordings lie: one stream of JetStream, for each session the subjects `rec.<id>.head`, `.part`, `.end`.

The front door appends, the gateway reads; nobody changes or deletes a message before its age, which the server enforces. A full
stream refuses: what can't be recorded doesn't run, and nobody makes room for it by filling the stream with something else.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import structlog

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.bus.jetstream_api import NO_STORAGE, SECOND_NS, STREAM_EXISTS, STREAM_NOT_FOUND, JetStreamApi, Refused
from libs.common.bus.nats import NatsBus
from libs.common.bus.pull import ConsumerLost, Pull
from libs.common.bus.streams import StreamSpec, append
from libs.common.contracts.subjects import RECORDINGS_STREAM, recording
from libs.common.recording.chain import Message

log = structlog.get_logger(component="recording")
MB = 1024 * 1024
DAY_S = 24 * 3600
MIN_BYTES = 64 * MB
READ_MESSAGES, READ_BYTES = 64, 4 * MB
ID = re.compile(r"[0-9]{8}t[0-9]{6}-[0-9a-f]{8}")


def new_id(now: datetime) -> str:
    """A name that says when and sorts by it: `20261124t091500-1f2e3d4c`."""
    return f"{now:%Y%m%dt%H%M%S}-{secrets.token_hex(4)}"


def parse_id(text: str) -> str:
    """Raises NotFound: an id goes into a subject."""
    if ID.fullmatch(text) is None:
        raise errors.NotFound(f'there is no recording "{text}"')
    return text


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A message as it lies in the stream."""

    id: str
    kind: str
    data: bytes


class RecordingLog(Protocol):
    """What writer and reader need of the stream; `JetStreamLog` is it, tests have one in memory."""

    async def ensure(self) -> None:
        """Make the stream where it is missing. Raises as `append`."""
        ...

    async def append(self, id_: str, message: Message) -> None:
        """Store it, once, however often this is called for it. Returns when it is stored. Raises Unavailable, Timeout."""
        ...

    def read(self, id_: str) -> AsyncGenerator[StoredPart, None]:
        """One recording, in order, up to what is there now. Raises Unavailable when it can't be read to its end."""
        ...

    def read_ends(self, since: datetime | None) -> AsyncGenerator[StoredPart, None]:
        """Heads and ends of all recordings, those that began before `since` left out."""
        ...


class JetStreamLog:
    """Implements `RecordingLog`."""

    def __init__(self, bus: Bus, *, max_bytes: int = 1024 * MB, max_age_s: int = 30 * DAY_S, replicas: int = 1) -> None:
        self._bus = bus
        self._replicas = replicas
        self._ensured = False
        self._spec = StreamSpec(
            RECORDINGS_STREAM, (recording("*", "*"),), max_bytes=max_bytes, max_age_s=max_age_s, when_full="refuse", append_only=True
        )  # fmt: skip

    async def ensure(self) -> None:
        """Once for each process. An existing stream stays as it is: who may change its bounds may empty it."""
        if self._ensured:
            return
        api, config = self._api(), self._spec.to_config(self._replicas)
        try:
            await api.call(f"STREAM.INFO.{RECORDINGS_STREAM}")
        except Refused as exc:
            if exc.code != STREAM_NOT_FOUND:
                raise
            await _create(api, config)
        self._ensured = True

    async def append(self, id_: str, message: Message) -> None:
        subject = recording(id_, message.kind)
        await append(self._api(), subject, message.data, message_id=f"{id_}:{message.number}")

    def read(self, id_: str) -> AsyncGenerator[StoredPart, None]:
        return self._consume([recording(id_, "*")], None)

    def read_ends(self, since: datetime | None) -> AsyncGenerator[StoredPart, None]:
        return self._consume([recording("*", "head"), recording("*", "end")], since)

    def _api(self) -> JetStreamApi:
        if not isinstance(self._bus, NatsBus):
            raise errors.Unavailable("recordings need a message bus with streams")
        return JetStreamApi(self._bus.connection)

    async def _consume(self, subjects: Sequence[str], since: datetime | None) -> AsyncGenerator[StoredPart, None]:
        api = self._api()
        name = f"read-{secrets.token_hex(8)}"
        config: dict[str, Any] = {
            "name": name, "filter_subjects": list(subjects), "ack_policy": "none", "mem_storage": True, "num_replicas": 1,
            "inactive_threshold": 30 * SECOND_NS, "deliver_policy": "all",
        }  # fmt: skip
        if since is not None:
            config |= {"deliver_policy": "by_start_time", "opt_start_time": since.isoformat()}
        try:
            async with Pull(api, RECORDINGS_STREAM, name, batch=READ_MESSAGES, max_bytes=READ_BYTES) as pull:
                made = await api.call(
                    f"CONSUMER.CREATE.{RECORDINGS_STREAM}.{name}",
                    {"stream_name": RECORDINGS_STREAM, "config": config, "action": "create"},
                )
                left = int(made["num_pending"])
                expected = 0
                while left:
                    arrived = await pull.next()
                    if arrived is None:
                        continue
                    message, delivery = arrived
                    expected += 1
                    if delivery.consumer_sequence != expected:
                        raise ConsumerLost("a message was missed")
                    left = min(left - 1, delivery.pending)
                    _, id_, kind = message.subject.split(".")
                    yield StoredPart(id_, kind, message.data)
        except Refused as exc:
            # Nothing was ever recorded: the stream is made with the first recording.
            if exc.code != STREAM_NOT_FOUND:
                raise
        except ConsumerLost as exc:
            raise errors.Unavailable(f"the recording could not be read to its end: {exc}") from exc
        finally:
            await _delete(api, name)


async def _create(api: JetStreamApi, config: dict[str, Any]) -> None:
    """The server sets a stream's room aside: a small disk gets a smaller one. Raises Refused."""
    while True:
        try:
            await api.call(f"STREAM.CREATE.{RECORDINGS_STREAM}", config, 5.0)
        except Refused as exc:
            if exc.code == STREAM_EXISTS:  # another process was faster
                return
            if exc.code != NO_STORAGE or config["max_bytes"] // 2 < MIN_BYTES:
                raise
            config = {**config, "max_bytes": config["max_bytes"] // 2}
        else:
            log.info("recordings_stream_created", max_bytes=config["max_bytes"])
            return


async def _delete(api: JetStreamApi, name: str) -> None:
    """The server would forget it by itself, half a minute later."""
    if api.connection.connected:
        try:
            await api.call(f"CONSUMER.DELETE.{RECORDINGS_STREAM}.{name}", timeout_s=1.0)
        except errors.HerdsmanError:
            return
