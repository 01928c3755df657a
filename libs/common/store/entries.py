"""What a stored message means: an entry or a tombstone. Shared by reads (`jetstream`) and watches (`watch`)."""

from __future__ import annotations

from collections.abc import Mapping

from libs.common.store.base import Entry

OPERATION = "KV-Operation"
MARKER = "Nats-Marker-Reason"
"""Set by the server on the tombstones that it writes itself, when the time of an entry has run out."""


def is_tombstone(headers: Mapping[str, str]) -> bool:
    return OPERATION in headers or MARKER in headers


def to_entry(key: str, value: bytes, sequence: int, headers: Mapping[str, str]) -> Entry:
    return Entry(key, value, sequence, is_tombstone(headers))
