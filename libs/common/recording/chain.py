"""The messages of one recording, signed and chained: nothing can be changed, left out or put in between without being noticed. Pure.

A message is an Ed25519 signature and a body; the body holds its number and the SHA-256 of the body before it. The head begins the chain,
so a part fits no other session; the last part is the end. What is missing behind a part that is no end shows as "unfinished".
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgpack
from pydantic import ValidationError

from libs.common import errors
from libs.common.recording.events import Event
from libs.common.recording.model import Facts, Outcome

PURPOSE = b"herdsman-recording/1\n"
"""Signed before each body, so that no signature of a recording is good for anything else of the same key."""
VERSION = 1
SIGNATURE_BYTES = 64
MAX_PLAIN = 8 * 1024 * 1024
Kind = Literal["head", "part", "end"]


class Signs(Protocol):
    def sign(self, purpose: bytes, data: bytes) -> bytes: ...


class Checks(Protocol):
    def is_genuine(self, purpose: bytes, data: bytes, signature: bytes) -> bool: ...


class Broken(errors.Conflict):
    """The recording is not what was written."""


@dataclass(frozen=True, slots=True)
class Message:
    """`subject` is the last token of where it is stored."""

    kind: Kind
    number: int
    data: bytes


class Sealer:
    """Makes one recording's messages, in order."""

    def __init__(self, signer: Signs) -> None:
        self._signer = signer
        self._number = 0
        self._before = b""

    def head(self, facts: Facts) -> Message:
        return self._seal("head", facts.model_dump_json().encode())

    def part(self, events: Iterable[Event]) -> Message:
        listed = [(event.at_ms, event.channel, event.data) for event in events]
        # Terminal output shrinks to a fifth at the quickest level; the server's own compression doesn't count against its limits.
        return self._seal("part", zlib.compress(msgpack.packb(listed), 1))

    def end(self, outcome: Outcome) -> Message:
        return self._seal("end", outcome.model_dump_json().encode())

    def _seal(self, kind: Kind, content: bytes) -> Message:
        body: bytes = msgpack.packb(
            {"v": VERSION, "kind": kind, "n": self._number, "before": self._before, "content": content}
        )
        message = Message(kind, self._number, self._signer.sign(PURPOSE, body) + body)
        self._number += 1
        self._before = hashlib.sha256(body).digest()
        return message


class Opener:
    """Reads one recording's messages, in order. What it returns was written by the front door, in this place, for this session."""

    def __init__(self, id_: str, verifier: Checks) -> None:
        self._id = id_
        self._verifier = verifier
        self._number = 0
        self._before = b""
        self.facts: Facts | None = None
        self.outcome: Outcome | None = None

    def open(self, data: bytes) -> list[Event]:
        """The events of the next message; the head and the end are in `facts` and `outcome`. Raises Broken."""
        signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
        if not self._verifier.is_genuine(PURPOSE, body, signature):
            raise Broken(f"message {self._number} of the recording was not signed by this hub's front door")
        fields = _unpack(body)
        if fields.get("n") != self._number or fields.get("before") != self._before:
            raise Broken(f"message {self._number} of the recording is not what was written there")
        if self.outcome is not None or (fields.get("kind") == "head") is not (self._number == 0):
            raise Broken(f"message {self._number} of the recording is out of place")
        self._number += 1
        self._before = hashlib.sha256(body).digest()
        return self._read(str(fields.get("kind")), fields.get("content") or b"")

    def _read(self, kind: str, content: bytes) -> list[Event]:
        if kind == "part":
            return _events(content)
        try:
            if kind == "head":
                self.facts = Facts.model_validate_json(content)
            else:
                self.outcome = Outcome.model_validate_json(content)
        except ValidationError as exc:
            raise Broken("the recording was written by a version of the hub that this one can't read") from exc
        if self.facts is None or self.facts.id != self._id:
            raise Broken("this is another session's recording")
        return []


def peek_outcome(data: bytes, verifier: Checks) -> Outcome | None:
    """The outcome in an end, for lists: signed, but not held against what stands before it. None where it is no genuine end."""
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    if not verifier.is_genuine(PURPOSE, body, signature):
        return None
    try:
        fields = _unpack(body)
        return Outcome.model_validate_json(fields["content"]) if fields.get("kind") == "end" else None
    except (Broken, ValidationError, KeyError, TypeError):
        return None


def _unpack(body: bytes) -> dict[str, Any]:
    try:
        fields = msgpack.unpackb(body)
    except ValueError as exc:
        raise Broken("the recording can't be read") from exc
    if not isinstance(fields, dict) or fields.get("v") != VERSION:
        raise Broken("the recording was written by a version of the hub that this one can't read")
    return fields


def _events(content: bytes) -> list[Event]:
    inflate = zlib.decompressobj()
    try:
        listed = msgpack.unpackb(inflate.decompress(content, MAX_PLAIN))
        return [Event(int(at_ms), int(channel), bytes(data)) for at_ms, channel, data in listed]
    except (zlib.error, ValueError, TypeError) as exc:
        raise Broken("the recording can't be read") from exc
