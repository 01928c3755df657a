"""JetStream's own protocol: JSON requests, publishing with acknowledgement, atomic batches, and what its errors mean to us.

The only module that knows error numbers. `store.jetstream`, `store.watch`, `store.backup` and `streams` speak through it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libs.common import errors
from libs.common.bus.client import RawMessage
from libs.common.bus.connection import Connection

EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
TRY_S = 2.0
"""How long one request may take; callers have a budget for several."""

SECOND_NS = 1_000_000_000

WRONG_SEQUENCE = 10071
NO_MESSAGE = 10037
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
TOO_LARGE = 10054
STREAM_EXISTS = 10058
NO_STORAGE = 10047
_NO_ROOM = {10002, 10023, 10028, 10047, 10077, 10122}
_NO_LEADER = {10004, 10007, 10008, 10009, 10041, 10074, 10076, 10039}


class Refused(errors.Unavailable):
    """JetStream said no, for certain. `again` tells whether the same request may succeed in a moment."""

    def __init__(self, message: str, code: int, *, again: bool) -> None:
        super().__init__(message)
        self.code = code
        self.again = again


class WrongSequence(errors.Conflict):
    """Somebody wrote in between: `last` is the sequence of the subject's last message, as far as the server says it."""

    def __init__(self, last: int) -> None:
        super().__init__("somebody else wrote in between")
        self.last = last


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of a stream."""

    subject: str
    sequence: int
    data: bytes
    headers: Mapping[str, str]


class JetStreamApi:
    """JetStream of the account that the connection belongs to."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def call(self, operation: str, request: Mapping[str, Any] | None = None, timeout_s: float = TRY_S) -> Any:
        """The answer to `$JS.API.<operation>`. Raises Refused, NotFound, Conflict; Unavailable, Timeout."""
        payload = json.dumps(request).encode() if request is not None else b""
        answer = await self.connection.request(f"$JS.API.{operation}", payload, timeout_s=timeout_s)
        return checked(answer.data, operation)

    async def publish(
        self, subject: str, data: bytes, headers: dict[str, str] | None = None, timeout_s: float = TRY_S
    ) -> int:
        """Store one message. Returns its sequence. Raises Conflict on a wrong expectation, Refused; Unavailable, Timeout."""
        answer = await self.connection.request(subject, data, timeout_s=timeout_s, headers=headers)
        return int(checked(answer.data, subject)["seq"])

    async def publish_batch(
        self, messages: Sequence[tuple[str, bytes, dict[str, str]]], timeout_s: float = TRY_S
    ) -> int:
        """Store all or none (NATS ADR-50). Returns the sequence of the last. Raises as `publish`."""
        batch = secrets.token_hex(16)
        last = len(messages)
        for number, (subject, data, headers) in enumerate(messages, 1):
            marked = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number), **headers}
            if number == last:
                marked["Nats-Batch-Commit"] = "1"
                answer = await self.connection.request(subject, data, timeout_s=timeout_s, headers=marked)
                return int(checked(answer.data, subject)["seq"])
            if number == 1:
                # The first is answered at once, empty when the batch was begun: a refusal comes before the rest is sent.
                answer = await self.connection.request(subject, data, timeout_s=timeout_s, headers=marked)
                if answer.data:
                    checked(answer.data, subject)
            else:
                await self.connection.publish(subject, data, headers=marked)
        raise ValueError("a batch needs messages")

    async def last_message(self, stream: str, subject: str, timeout_s: float = TRY_S) -> Stored | None:
        """The last message on a subject, from the stream's leader, or None. Raises Refused; Unavailable, Timeout."""
        try:
            answer = await self.call(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}, timeout_s)
        except errors.NotFound:
            return None
        return _stored(answer["message"])

    async def message_at(self, stream: str, sequence: int, timeout_s: float = TRY_S) -> Stored | None:
        """The message with a sequence, or None when it is gone. Raises as `last_message`."""
        try:
            answer = await self.call(f"STREAM.MSG.GET.{stream}", {"seq": sequence}, timeout_s)
        except errors.NotFound:
            return None
        return _stored(answer["message"])


def checked(data: bytes, what: str) -> Any:
    """The JSON answer, if it is no error."""
    try:
        answer = json.loads(data)
    except ValueError as exc:
        raise errors.Timeout(f'the answer on "{what}" is not JSON: it may have been done or not') from exc
    error = answer.get("error") if isinstance(answer, dict) else None
    if error:
        raise to_error(
            int(error.get("code", 500)), int(error.get("err_code", 0)), str(error.get("description", "")), what
        )
    return answer


def to_error(code: int, number: int, description: str, what: str) -> errors.HerdsmanError:
    """JetStream's error in our families."""
    if number == WRONG_SEQUENCE:
        said = re.search(r"wrong last sequence: (\d+)", description)
        return WrongSequence(int(said.group(1)) if said else 0)
    if number in (NO_MESSAGE, CONSUMER_NOT_FOUND):
        return errors.NotFound(f'not found: "{what}"')
    if number == TOO_LARGE:
        return errors.TooLarge("this is larger than the store takes: make it smaller")
    if number == STREAM_NOT_FOUND:
        return Refused(f'the stream behind "{what}" does not exist: start the service that owns it', number, again=True)
    if number in _NO_ROOM:
        return Refused(
            f"the store has no room for more ({description}): delete what is not needed or give it more",
            number,
            again=False,
        )
    if number in _NO_LEADER or code == 503 or "inflight" in description:
        return Refused(f"the store cannot answer right now: {description}", number, again=True)
    return Refused(f'the store refused "{what}": {description}', number, again=False)


def _stored(message: Mapping[str, Any]) -> Stored:
    return Stored(
        subject=str(message["subject"]),
        sequence=int(message["seq"]),
        data=base64.b64decode(message.get("data") or ""),
        headers=_parse_headers(str(message.get("hdrs") or "")),
    )


def _parse_headers(encoded: str) -> dict[str, str]:
    try:
        lines = base64.b64decode(encoded).decode("utf-8", "replace").split("\r\n")[1:]
    except binascii.Error:
        return {}
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip(): value.strip() for name, _, value in pairs}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a consumer says about a message, from its reply subject (both forms that servers use)."""

    stream_sequence: int
    consumer_sequence: int
    deliveries: int
    pending: int


def parse_delivery(message: RawMessage) -> Delivery | None:
    """None for a message that no consumer delivered."""
    parts = message.reply.split(".")
    if parts[:2] != ["$JS", "ACK"] or len(parts) < 9:
        return None
    # Nine parts in the old form; the newer one has the domain and the account's hash before the stream's name.
    start = 4 if len(parts) == 9 else 6
    try:
        deliveries, stream_sequence, consumer_sequence, _timestamp, pending = map(int, parts[start : start + 5])
    except ValueError:
        return None
    return Delivery(stream_sequence, consumer_sequence, deliveries, pending)
