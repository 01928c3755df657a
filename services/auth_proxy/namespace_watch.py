"""A watch of namespaces that was narrowed to the caller's projects, followed so that it can end when these change.

What it was narrowed to stands in its request, so a namespace that joins or leaves can't be told in the same stream. It ends with the event
by which an API server says that a watch is too old to go on, 410 `Expired`: that is the one end after which every client lists again. After a plain end it
would go on from where it was, and never hear of what left.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.access.grants import Grants
from libs.common.apiserver.protobuf import MAGIC, encode_field
from libs.common.relay.decision import Tap
from libs.common.relay.head import RequestHead, ResponseHead
from libs.common.relay.payload import Payload
from services.auth_proxy.places import Places

if TYPE_CHECKING:
    from libs.common.relay.exchange import Exchange
    from services.auth_proxy.authenticate import Caller

MESSAGE = "the namespaces that you may see here have changed: list them again"
MAX_TRIES = 6
"""A review comes twice a second at least; half an event for so long is no event that is on its way."""
_PROTOBUF = b"application/vnd.kubernetes.protobuf"


class Lines:
    """JSON: an event is a line."""

    __slots__ = ("whole",)

    def __init__(self) -> None:
        self.whole = True

    def feed(self, data: bytes) -> None:
        if data:
            self.whole = data.endswith(b"\n")


class Frames:
    """Protobuf: an event is preceded by its length in four bytes, the highest first."""

    __slots__ = ("_left", "_prefix")

    def __init__(self) -> None:
        self._left = 0
        self._prefix = b""

    @property
    def whole(self) -> bool:
        return not self._left and not self._prefix

    def feed(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            if self._left:
                step = min(self._left, len(data) - position)
                self._left -= step
                position += step
                continue
            wanted = 4 - len(self._prefix)
            self._prefix += data[position : position + wanted]
            position += wanted
            if len(self._prefix) == 4:
                self._left = int.from_bytes(self._prefix, "big")
                self._prefix = b""


class WatchTap:
    """Knows whether the client has whole events, and what to say last. A `decision.Tap`; what else must see the bytes comes before."""

    __slots__ = ("_events", "_inner", "_payload")

    def __init__(self, inner: Tap | None) -> None:
        self._inner = inner
        self._payload = Payload()
        self._events: Lines | Frames | None = None

    def request_bytes(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.request_bytes(data)

    def response_head(self, head: ResponseHead) -> None:
        if self._inner is not None:
            self._inner.response_head(head)
        if head.status == 200 and head.chunked and not head.value(b"content-encoding"):
            media = head.value(b"content-type").partition(b";")[0].strip().lower()
            self._events = Lines() if media == b"application/json" else Frames() if media == _PROTOBUF else None

    def response_bytes(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.response_bytes(data)
        if self._events is not None:
            self._events.feed(self._payload.feed(data))

    @property
    def last(self) -> bytes:
        """The event that ends the stream; b"" while the client has half of one, or nothing is known of what it gets."""
        if self._events is None or not self._events.whole:
            return b""
        return LAST_LINE if isinstance(self._events, Lines) else LAST_FRAME


def _render_line() -> bytes:
    status = errors.Expired(MESSAGE).to_status()
    return json.dumps({"type": "ERROR", "object": status}, separators=(",", ":")).encode() + b"\n"


def _render_frame() -> bytes:
    """`WatchEvent{type, object{raw}}`, the object as any other protobuf body (`generated.proto` of apimachinery)."""
    error = errors.Expired(MESSAGE)
    status = (
        encode_field(1, b"")
        + encode_field(2, "Failure")
        + encode_field(3, error.message)
        + encode_field(4, error.reason)
        + encode_field(6, error.http_status)
    )
    kind = encode_field(1, encode_field(1, "v1") + encode_field(2, "Status"))
    unknown = MAGIC + kind + encode_field(2, status) + encode_field(3, "") + encode_field(4, "")
    event = encode_field(1, "ERROR") + encode_field(2, encode_field(1, unknown))
    return len(event).to_bytes(4, "big") + event


LAST_LINE, LAST_FRAME = _render_line(), _render_frame()


def accept_of(head: RequestHead) -> str:
    """All that the client takes, as one value."""
    return ",".join(value.decode("latin-1") for lower, value, _ in head.fields if lower == b"accept")


class Narrowed:
    """What a watch was narrowed to, and whether that is still what its caller may see."""

    __slots__ = ("_find", "_known_for", "_names", "_places", "_tap", "_tries")

    def __init__(
        self, names: frozenset[str], find: Callable[[Caller, Grants], frozenset[str] | None], places: Places, tap: WatchTap
    ) -> None:  # fmt: skip
        self._names = names
        self._find = find
        self._places = places
        self._tap = tap
        self._known_for: tuple[object, object, object] = (None, None, None)
        self._tries = 0

    def is_current(self, caller: Caller, grants: Grants) -> bool:
        known_for = (caller, grants, self._places.version)
        if all(a is b for a, b in zip(known_for, self._known_for, strict=True)):
            return True
        if self._find(caller, grants) != self._names:
            return False
        self._known_for = known_for
        return True

    def end(self, exchange: Exchange) -> bool:
        """End the stream so that its client lists again. False: not at this moment; after some tries it is given up (`Exchange.fail`)."""
        last = self._tap.last
        if last and exchange.end_stream(last):
            return True
        self._tries += 1
        if self._tries > MAX_TRIES:
            exchange.fail(errors.Expired(MESSAGE))
            return True
        return False
