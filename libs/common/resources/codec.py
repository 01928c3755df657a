"""Object ↔ stored bytes, and object ↔ API document. The only place that knows the stored form.

A stored value is msgpack `{"v": 1, "op": <operation id>, "object": <document>, "private": <document or absent>}`. The
resourceVersion is the stream sequence and is never stored: it is set when an entry is read.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgpack

from libs.common import errors
from libs.common.resources.meta import Resource

FORMAT_VERSION = 1
R = TypeVar("R", bound=Resource)


def encode(resource: Resource, operation_id: str = "", *, deleted: bool = False) -> bytes:
    """The bytes to store. The resourceVersion is left out: it would be that of the write before.

    `deleted`: the last bytes that a tombstone keeps, without the private part: nobody signs in with what is gone.
    """
    document = to_document(resource)
    document["metadata"].pop("resourceVersion", None)
    value: dict[str, Any] = {"v": FORMAT_VERSION, "op": operation_id, "object": document}
    private = None if deleted else getattr(resource, "private", None)
    if private is not None:
        value["private"] = private.to_document()
    packed: bytes = msgpack.packb(value)
    return packed


def decode(model: type[R], value: bytes, revision: int) -> R:
    """The object in stored bytes. Raises Internal when they are of a newer format than this version reads."""
    stored = _unpack(value)
    document = stored["object"]
    if "private" in stored and "private" in model.model_fields:
        document["private"] = stored["private"]
    document["metadata"]["resourceVersion"] = str(revision)
    return model.model_validate(document)


def decode_document(value: bytes, revision: int) -> dict[str, Any]:
    """The API document in stored bytes, without a model: what lists and watches serve. Never holds `private`."""
    document: dict[str, Any] = _unpack(value)["object"]
    document["metadata"]["resourceVersion"] = str(revision)
    return document


def operation_id(value: bytes) -> str:
    """The id of the operation that wrote these bytes: resolves a write whose answer was lost."""
    return str(_unpack(value).get("op", ""))


def to_document(resource: Resource) -> dict[str, Any]:
    """The API document: camelCase, without nulls, without `private`, apiVersion and kind first."""
    return resource.to_document()


def _unpack(value: bytes) -> dict[str, Any]:
    try:
        stored = msgpack.unpackb(value)
        known = stored["v"] <= FORMAT_VERSION
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as exc:
        raise errors.Internal("a stored object cannot be read: its bytes are not in a known format") from exc
    if not known:
        raise errors.Internal("a stored object was written by a newer version of Herdsman: upgrade this service")
    return dict(stored)
