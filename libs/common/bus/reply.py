"""The form of an answer on the bus: msgpack `{"ok": document}` or `{"error": family, message, …}`, and its headers.

A request says how long its caller still waits, as a duration: the clocks of a hub and its agents need not agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgpack
from pydantic import BaseModel, ValidationError

from libs.common import errors
from libs.common.bus.wire import unpack
from libs.common.observe import client, trace

M = TypeVar("M", bound=BaseModel)

DEADLINE_HEADER = "Herdsman-Deadline-Ms"


def pack_reply(model: BaseModel) -> bytes:
    packed: bytes = msgpack.packb({"ok": model.model_dump(mode="json", by_alias=True, exclude_none=True)})
    return packed


def pack_error(error: errors.HerdsmanError) -> bytes:
    packed: bytes = msgpack.packb({"error": error.to_wire()})
    return packed


def parse_reply(model: type[M], data: bytes) -> M:
    """The handler's answer. Raises the handler's error, or Internal when the answer is none of ours."""
    try:
        answer = unpack(data)
    except errors.BadRequest as exc:
        raise errors.Internal("the answer is not msgpack") from exc
    if not isinstance(answer, Mapping):
        raise errors.Internal("the answer has no known form")
    if isinstance(answer.get("error"), Mapping):
        raise errors.from_wire(answer["error"])
    try:
        return model.model_validate(answer["ok"])
    except (KeyError, ValidationError) as exc:
        raise errors.Internal(
            f"the answer is no {model.__name__}: caller and service may be of different versions"
        ) from exc


def request_headers(timeout_s: float) -> dict[str, str]:
    """Headers of a request: the caller's patience and its trace."""
    headers = {DEADLINE_HEADER: str(max(1, int(timeout_s * 1000)))}
    return headers | message_headers()


def message_headers() -> dict[str, str]:
    """Headers of a plain message: its trace, if it is in one, and the client whose call it belongs to, if there is one."""
    traceparent = trace.current()
    return ({trace.HEADER: traceparent} if traceparent else {}) | client.current().headers()


def parse_deadline(headers: Mapping[str, str]) -> float | None:
    """Seconds that the caller still waits; None when it did not say in a way that can be read."""
    text = headers.get(DEADLINE_HEADER, "")
    return int(text) / 1000 if text.isascii() and text.isdigit() and len(text) < 10 else None
