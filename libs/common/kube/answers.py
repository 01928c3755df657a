"""Bodies of answers: whole documents within a limit, and the lines of a watch as events. Used by `client`."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from libs.common import errors
from libs.common.kube.failures import error_of_status

ANSWER_LIMIT_BYTES = 64 << 20
WATCH_LINE_LIMIT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: dict[str, Any]

    @property
    def resource_version(self) -> str:
        return str(self.object["metadata"].get("resourceVersion") or "")


async def read_limited(answer: aiohttp.ClientResponse, doing: str) -> bytes:
    """The whole body. Raises TooLarge."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
        if size > ANSWER_LIMIT_BYTES:
            raise errors.TooLarge(f"cannot {doing}: the answer is larger than {ANSWER_LIMIT_BYTES >> 20} MiB")
        chunks.append(chunk)
    return b"".join(chunks)


async def read_lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines; aiohttp's own reader refuses those over 64 KiB, and objects are larger."""
    rest = bytearray()
    async for chunk in content.iter_any():
        rest += chunk
        if len(rest) > WATCH_LINE_LIMIT_BYTES:
            raise errors.TooLarge(f"an object in a watch is larger than {WATCH_LINE_LIMIT_BYTES >> 20} MiB")
        *whole, tail = rest.split(b"\n")
        rest = bytearray(tail)
        for line in whole:
            if line.strip():
                yield bytes(line)


def parse_event(line: bytes, doing: str) -> WatchEvent:
    """The event in one line. Raises the error that an ERROR event holds, Unavailable for what is no event."""
    try:
        document = json.loads(line)
        event = WatchEvent(str(document["type"]), document["object"])
    except (ValueError, KeyError, TypeError) as exc:
        raise errors.Unavailable(f"cannot {doing}: an event is no JSON") from exc
    if event.type == "ERROR":
        raise error_of_status(event.object, doing)
    return event


_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


def parse_warning(header: str) -> str:
    """The text of a Warning header as API servers send it (RFC 7234 5.5, code 299); empty for any other."""
    found = _WARNING.match(header)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else ""
