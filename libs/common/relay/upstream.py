"""One connection towards where requests go: to a server that we dialled, or to an agent that dialled us.

It carries one exchange at a time. What comes while none is there is a fault of the far side and closes it. `pool` and the
registry of reverse connections own it while it is idle; `exchange` while it is in use.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from libs.common.relay import sockets


class Conversation(Protocol):
    """What uses an upstream connection at the moment: an exchange, or a ping."""

    def response_data(self, data: bytes) -> None: ...

    def upstream_ended(self, error: BaseException | None) -> None:
        """The far side is gone; the connection is closed."""
        ...

    def upstream_writable(self, writable: bool) -> None: ...


class Home(Protocol):
    """Who keeps the connection while nobody uses it."""

    def put_back(self, upstream: Upstream) -> None:
        """It is clean and idle again."""
        ...

    def lost(self, upstream: Upstream) -> None:
        """It is closed; called exactly once."""
        ...


class Upstream(asyncio.Protocol):
    """Invariant: `conversation` is None exactly while the connection is idle at home or closed."""

    __slots__ = (
        "_conversation",
        "_holds",
        "closed",
        "home",
        "idle_since",
        "transport",
        "used",
        "write_paused",
    )

    def __init__(self, home: Home) -> None:
        self.home = home
        self.used = False
        self.closed = False
        self.idle_since = 0.0
        self.write_paused = False
        self._conversation: Conversation | None = None
        self._holds = 0
        self.transport: asyncio.Transport

    @property
    def idle(self) -> bool:
        return self._conversation is None and not self.closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.adopt(cast(asyncio.Transport, transport))

    def adopt(self, transport: asyncio.Transport) -> None:
        """Take a transport that exists already: a connection that was accepted and then turned round."""
        self.transport = transport
        sockets.tune(transport)

    def begin(self, conversation: Conversation) -> None:
        assert self._conversation is None
        self._conversation = conversation

    def end(self, clean: bool) -> None:
        """The conversation is over; only a clean connection is used again."""
        self._conversation = None
        self.used = True
        if not clean or self.closed or self.transport.is_closing():
            self.close()
            return
        if self._holds:
            self._holds = 0
            self.transport.resume_reading()
        self.idle_since = asyncio.get_running_loop().time()
        self.home.put_back(self)

    def leave(self) -> asyncio.Transport:
        """Give the transport away for a splice: this object is done with it."""
        self._conversation = None
        self.closed = True
        if self._holds:
            self._holds = 0
            self.transport.resume_reading()
        self.home.lost(self)
        return self.transport

    def close(self) -> None:
        """Close at once and for good; nothing that was queued matters any more."""
        self._conversation = None
        if not self.closed:
            self.closed = True
            self.transport.abort()
            self.home.lost(self)

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def hold(self, reason: int) -> None:
        """Stop reading for this reason, until `release`."""
        if not self._holds and not self.closed:
            self.transport.pause_reading()
        self._holds |= reason

    def release(self, reason: int) -> None:
        if self._holds:
            self._holds &= ~reason
            if not self._holds and not self.closed:
                self.transport.resume_reading()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if self._conversation is None:
            self.close()
        else:
            self._conversation.response_data(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        conversation, self._conversation = self._conversation, None
        if not self.closed:
            self.closed = True
            self.home.lost(self)
        if conversation is not None:
            conversation.upstream_ended(exc)

    def pause_writing(self) -> None:
        self.write_paused = True
        if self._conversation is not None:
            self._conversation.upstream_writable(False)

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._conversation is not None:
            self._conversation.upstream_writable(True)
