"""Kubernetes' protobuf bodies → documents, for the few built-in types that clients send us so.

kubectl ≥ 1.32 posts built-in types as protobuf with no JSON fallback. This reads the wire format by tables of the public field
numbers (`generated.proto` of k8s.io/api and apimachinery); unknown fields are skipped, answers are always JSON. The writing
half (`field`, `varint`) is used by `openapi_v2`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from libs.common import errors

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class F:
    """One field: its JSON name, its type (string, bool, int or a Message), whether it repeats or is a string map."""

    name: str
    type: str | Message = "string"
    repeated: bool = False
    map: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    fields: Mapping[int, F] = field(default_factory=dict)


_TIME = Message({1: F("seconds", "int"), 2: F("nanos", "int")})
_OBJECT_META = Message({
    1: F("name"), 2: F("generateName"), 3: F("namespace"), 5: F("uid"), 6: F("resourceVersion"), 7: F("generation", "int"),
    11: F("labels", map=True), 12: F("annotations", map=True), 14: F("finalizers", repeated=True),
})  # fmt: skip
_FIELD_SELECTOR = Message({1: F("rawSelector")})
_RESOURCE_ATTRIBUTES = Message({
    1: F("namespace"), 2: F("verb"), 3: F("group"), 4: F("version"), 5: F("resource"), 6: F("subresource"), 7: F("name"),
    8: F("fieldSelector", _FIELD_SELECTOR), 9: F("labelSelector", _FIELD_SELECTOR),
})  # fmt: skip
_ACCESS_SPEC = Message({
    1: F("resourceAttributes", _RESOURCE_ATTRIBUTES),
    2: F("nonResourceAttributes", Message({1: F("path"), 2: F("verb")})),
})  # fmt: skip
_DELETE_OPTIONS = Message({
    1: F("gracePeriodSeconds", "int"), 2: F("preconditions", Message({1: F("uid"), 2: F("resourceVersion")})),
    3: F("orphanDependents", "bool"), 4: F("propagationPolicy"), 5: F("dryRun", repeated=True),
})  # fmt: skip
_REVIEW = Message({1: F("metadata", _OBJECT_META)})

MESSAGES: Mapping[str, Message] = {
    "SelfSubjectAccessReview": Message({1: F("metadata", _OBJECT_META), 2: F("spec", _ACCESS_SPEC)}),
    "SelfSubjectRulesReview": Message({1: F("metadata", _OBJECT_META), 2: F("spec", Message({1: F("namespace")}))}),
    "SelfSubjectReview": _REVIEW,
    "DeleteOptions": _DELETE_OPTIONS,
    "Namespace": Message({
        1: F("metadata", _OBJECT_META), 2: F("spec", Message({1: F("finalizers", repeated=True)})),
        3: F("status", Message({1: F("phase")})),
    }),
}  # fmt: skip
_TYPE_META = Message({1: F("apiVersion"), 2: F("kind")})
_UNKNOWN = Message({1: F("typeMeta", _TYPE_META), 2: F("raw", "bytes"), 3: F("contentEncoding"), 4: F("contentType")})


def parse_envelope(body: bytes) -> dict[str, Any]:
    """The document in a protobuf body. Raises BadRequest when it is none, UnsupportedMediaType for a kind that nobody declared."""
    if not body.startswith(MAGIC):
        raise errors.BadRequest("the body is no Kubernetes protobuf: it does not begin with k8s\\x00")
    envelope = _decode(_UNKNOWN, body[len(MAGIC) :])
    type_meta = envelope.get("typeMeta", {})
    kind, version = type_meta.get("kind", ""), type_meta.get("apiVersion", "")
    message = MESSAGES.get(kind)
    if message is None:
        raise errors.UnsupportedMediaType(f'{version} "{kind}" is not read as protobuf: send application/json')
    return {"apiVersion": version, "kind": kind, **_decode(message, envelope.get("raw", b""))}


def _decode(message: Message, data: bytes) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for number, value in _read(data):
        spec = message.fields.get(number)
        if spec is None:
            continue
        if spec.map:
            entry = _decode(Message({1: F("k"), 2: F("v")}), _as_bytes(value))
            document.setdefault(spec.name, {})[entry.get("k", "")] = entry.get("v", "")
        elif spec.repeated:
            document.setdefault(spec.name, []).append(_value(spec, value))
        else:
            document[spec.name] = _value(spec, value)
    # Go writes every string, set or not: in JSON an empty one would be left out.
    return {k: v for k, v in document.items() if v != ""}


def _value(spec: F, value: int | bytes) -> Any:
    if isinstance(spec.type, Message):
        return _decode(spec.type, _as_bytes(value))
    if spec.type == "bytes":
        return _as_bytes(value)
    if spec.type in ("int", "bool"):
        if not isinstance(value, int):
            raise errors.BadRequest(f"the protobuf field {spec.name} has a wrong wire type")
        signed = value - (1 << 64) if value >= 1 << 63 else value
        return bool(value) if spec.type == "bool" else signed
    try:
        return _as_bytes(value).decode("utf-8")
    except UnicodeDecodeError as exc:
        raise errors.BadRequest(f"the protobuf field {spec.name} is not UTF-8") from exc


def _as_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise errors.BadRequest("a protobuf field has a wrong wire type")
    return value


def _read(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Fields in order. Raises BadRequest for bytes that are no protobuf."""
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _read_varint(data, position)
            yield number, value
            continue
        if wire == _BYTES:
            size, position = _read_varint(data, position)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise errors.BadRequest("the body is no protobuf: it has a wire type that does not exist")
        if position + size > len(data):
            raise errors.BadRequest("the body is no protobuf: it ends within a field")
        yield number, data[position : position + size]
        position += size


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise errors.BadRequest("the body is no protobuf: a number has no end")
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def varint(value: int) -> bytes:
    """A number in the wire format."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_field(number: int, value: str | bytes | bool | int) -> bytes:
    """One field: text and nested messages by length, numbers and booleans as varints."""
    if isinstance(value, bool | int):
        return varint(number << 3 | _VARINT) + varint(int(value))
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | _BYTES) + varint(len(raw)) + raw
