"""Models ↔ bytes on the bus: msgpack of the JSON-mode document, one codec for all messages."""

from __future__ import annotations

from typing import Any, TypeVar

import msgpack
from pydantic import BaseModel, ValidationError

from libs.common import errors

M = TypeVar("M", bound=BaseModel)


def pack(model: BaseModel) -> bytes:
    """The payload bytes; absent and null are the same."""
    packed: bytes = msgpack.packb(model.model_dump(mode="json", by_alias=True, exclude_none=True))
    return packed


def parse(model: type[M], data: bytes) -> M:
    """The model in payload bytes. Raises BadRequest; unknown fields are ignored (an older reader, a newer writer)."""
    try:
        return model.model_validate(unpack(data))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise errors.BadRequest(f"cannot read {model.__name__}: {where}: {first['msg']}") from exc


def unpack(data: bytes) -> Any:
    """The plain value in payload bytes. Raises BadRequest."""
    try:
        return msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException) as exc:
        raise errors.BadRequest("cannot read the message: it is not msgpack") from exc
