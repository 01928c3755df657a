"""Collects the bodies of one call while they pass, up to a limit: a `relay.decision.Tap`. Reading them happens beside the loop.

All calls share one budget of memory: when it is used up, a body is left out and the event says so; the call goes on.
"""

from __future__ import annotations

from typing import Any

from libs.common.audit.bodies import LIMIT, read_body
from libs.common.relay.head import RequestHead, ResponseHead

WIRE_LIMIT = LIMIT + 4096
"""A little more than is shown: the framing of a chunked body is part of what is collected."""
BUDGET = 64 * 1024 * 1024


class Budget:
    """Bytes that all taps of this process may hold."""

    __slots__ = ("left",)

    def __init__(self, size: int = BUDGET) -> None:
        self.left = size


class BodyTap:
    """`response` False: only the request's body is wanted."""

    __slots__ = ("_budget", "_held", "_left_out", "_request", "_request_head", "_response", "_response_head", "_sizes", "_wants_response")  # fmt: skip

    def __init__(self, budget: Budget, head: RequestHead, *, response: bool) -> None:
        self._budget = budget
        self._request: list[bytes] = []
        self._response: list[bytes] = []
        self._request_head = (head.value(b"content-type"), head.value(b"content-encoding"), head.chunked)
        self._response_head = (b"", b"", False)
        self._sizes = [0, 0, 0, 0]
        """Bytes that passed and bytes that are held, of the request and of the response."""
        self._wants_response = response
        self._held = 0
        self._left_out = False

    def request_bytes(self, data: bytes) -> None:
        self._sizes[0] += len(data)
        self._keep(self._request, data, 1)

    def response_head(self, head: ResponseHead) -> None:
        self._response_head = (head.value(b"content-type"), head.value(b"content-encoding"), head.chunked)

    def response_bytes(self, data: bytes) -> None:
        if self._wants_response:
            self._sizes[2] += len(data)
            self._keep(self._response, data, 3)

    def _keep(self, parts: list[bytes], data: bytes, size: int) -> None:
        room = WIRE_LIMIT - self._sizes[size]
        if room <= 0 or not data:
            return
        piece = data[:room]
        if len(piece) > self._budget.left:
            self._left_out = True
            self._sizes[size] = WIRE_LIMIT
            return
        self._budget.left -= len(piece)
        self._held += len(piece)
        self._sizes[size] += len(piece)
        parts.append(piece)

    def release(self) -> None:
        """Give the memory back; the loop calls it when the event is written."""
        self._budget.left += self._held
        self._held = 0
        self._request.clear()
        self._response.clear()

    def render(self) -> dict[str, Any]:
        """What the event shows; in the writer's thread."""
        if self._left_out:
            return {"note": "left out: the bodies of the calls under way take up all the memory set aside for them"}
        return {
            "requestObject": _read(self._request, self._sizes[0], self._request_head),
            "responseObject": _read(self._response, self._sizes[2], self._response_head)
            if self._wants_response
            else None,
        }


class NoBodies:
    """Says why an event that should show bodies has none."""

    __slots__ = ("_why",)

    def __init__(self, why: str) -> None:
        self._why = why

    def release(self) -> None:
        """It holds nothing."""

    def render(self) -> dict[str, Any]:
        return {"note": self._why}


def _read(parts: list[bytes], size: int, head: tuple[bytes, bytes, bool]) -> Any:
    content_type, encoding, chunked = head
    return read_body(
        b"".join(parts), size, content_type=content_type.decode("latin-1"), encoding=encoding.decode("latin-1"), chunked=chunked,
    )  # fmt: skip
