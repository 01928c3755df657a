"""What a route answers the engine for one request head: answer it here, relay it there, or take the connection over.

A route is a plain function: it decides on values at hand and never waits; what it must wait for first it answers with `Later`. Raising a `HerdsmanError` is an answer too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from libs.common import errors
from libs.common.relay.head import RequestHead, ResponseHead

if TYPE_CHECKING:
    from libs.common.relay.exchange import Exchange
    from libs.common.relay.session import Session
    from libs.common.relay.upstream import Upstream

Reshape = Callable[[ResponseHead, bool], bytes]
"""Makes the client's head from the upstream's; the flag says that the connection closes after it. May raise."""


class Source(Protocol):
    """Where upstream connections come from: a `pool`, or the reverse connections of a cluster."""

    def acquire(self) -> Upstream | None:
        """A connection that is ready now, or None."""
        ...

    async def open(self) -> Upstream:
        """A connection, dialled or waited for. Raises Unavailable with a sentence that says where and why."""
        ...


class Watcher(Protocol):
    """Told of one exchange's begin and end: audit, and the registry that can cut streams."""

    def began(self, exchange: Exchange) -> None: ...

    def ended(self, exchange: Exchange) -> None: ...


class Tap(Protocol):
    """Sees the bytes of one exchange as they pass: bodies, and after a switch of protocols both streams. Never waits.

    It is called before the bytes are written on, so what it has seen is at least what the other side can have seen. An exception
    from it ends the exchange as a bug would: what must be written down and can't be is not passed on.
    """

    def request_bytes(self, data: bytes) -> None: ...

    def response_head(self, head: ResponseHead) -> None:
        """The final head (not 1xx), or the 101, as the far side sent it."""
        ...

    def response_bytes(self, data: bytes) -> None: ...


@dataclass(slots=True)
class Relay:
    """Send `head`, which is complete, over a connection of `source`."""

    source: Source
    head: bytes
    reshape: Reshape
    upgrade: bytes = b""
    """The protocol that may be switched to, lower case; any other answer than its 101 closes both sides."""
    first_byte_s: float | None = None
    """How long the answer's head may take; None for watches, logs and upgrades."""
    watcher: Watcher | None = None
    tap: Tap | None = None
    """Whoever must see the bytes; None, as almost always, costs nothing."""
    then: Callable[[ResponseHead], Relay | None] | None = None
    """Looks at the answer's head. A relay = the client's answer is to be had there, by a request that only reads; this one is dropped. May raise."""


@dataclass(slots=True)
class Answer:
    """Answer without anybody else."""

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: tuple[bytes, ...] = ()
    close: bool = False


@dataclass(slots=True)
class Refusal:
    """An error as answer; the same as raising it, for who already has it at hand."""

    error: errors.HerdsmanError
    close: bool = False


@dataclass(slots=True)
class TakeOver:
    """Write `head` (a 101) and hand the connection to `accept`, which sets a protocol of its own on the transport."""

    head: bytes
    accept: Callable[[Session], None]


@dataclass(slots=True)
class Later:
    """Something has to be fetched first: `decide` waits for it, for a limited time, and decides then. Rare by design: it costs a task.

    Its errors are answers, as a route's are. It must not answer `Later` again.
    """

    decide: Callable[[], Coroutine[Any, Any, Decision]]


Decision = Relay | Answer | Refusal | TakeOver | Later
Route = Callable[[RequestHead, "Session"], Decision]
