"""Messages that a consumer gave up on: kept with what was wrong, looked at by people, and sent again when the cause is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgpack

from libs.common import errors
from libs.common.bus.jetstream_api import JetStreamApi
from libs.common.bus.streams import MESSAGE_ID, StreamSpec, append

DEAD_LETTERS = StreamSpec(
    "DEAD_LETTERS", ("dead.>",), max_bytes=64 * 1024 * 1024, max_age_s=30 * 24 * 3600, compressed=True
)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`failures` are the errors of the attempts that this process saw, oldest first."""

    stream: str
    consumer: str
    sequence: int
    subject: str
    data: bytes
    headers: Mapping[str, str]
    deliveries: int
    failures: tuple[str, ...]


async def bury(api: JetStreamApi, letter: DeadLetter) -> int:
    """Store a dead letter, once however often it is tried. Returns its sequence among the dead letters."""
    packed: bytes = msgpack.packb({
        "stream": letter.stream, "consumer": letter.consumer, "sequence": letter.sequence, "subject": letter.subject,
        "data": letter.data, "headers": dict(letter.headers), "deliveries": letter.deliveries,
        "failures": list(letter.failures),
    })  # fmt: skip
    subject = f"dead.{letter.stream}.{letter.consumer}"
    return await append(api, subject, packed, message_id=f"{subject}.{letter.sequence}")


async def read_dead_letter(api: JetStreamApi, sequence: int) -> DeadLetter:
    """One dead letter. Raises NotFound."""
    stored = await api.message_at(DEAD_LETTERS.name, sequence)
    if stored is None:
        raise errors.NotFound(f"there is no dead letter {sequence}", name=str(sequence))
    fields = msgpack.unpackb(stored.data)
    return DeadLetter(**{**fields, "failures": tuple(fields["failures"])})


async def replay_dead_letter(api: JetStreamApi, sequence: int) -> int:
    """Send the message again to where it came from, then forget the dead letter. Returns the message's new sequence.

    Safe to repeat: until it is forgotten, sending it again is suppressed by its id. Raises NotFound.
    """
    letter = await read_dead_letter(api, sequence)
    headers = {name: value for name, value in letter.headers.items() if not name.startswith("Nats-")}
    headers[MESSAGE_ID] = f"replay.{letter.stream}.{letter.consumer}.{letter.sequence}.{sequence}"
    again = await api.publish(letter.subject, letter.data, headers)
    await api.call(f"STREAM.MSG.DELETE.{DEAD_LETTERS.name}", {"seq": sequence})
    return again
