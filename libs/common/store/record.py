"""The bytes of what an owner keeps for itself: no resource, so in no API. Each write has an operation id of its own, by which the store recognises it after a lost answer."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgpack

from libs.common import errors
from libs.common.store.base import Entry


def pack_record(content: Mapping[str, Any]) -> bytes:
    """Bytes to store, unlike those of any other write."""
    packed: bytes = msgpack.packb({"v": 1, "op": secrets.token_hex(12), "object": dict(content)})
    return packed


def unpack_record(entry: Entry) -> dict[str, Any]:
    """Raises Internal when the bytes are none of ours."""
    try:
        return dict(msgpack.unpackb(entry.value)["object"])
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as exc:
        raise errors.Internal(f'"{entry.key}" cannot be read') from exc
