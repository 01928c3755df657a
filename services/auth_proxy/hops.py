"""The outer end of the internal hop: connections to the other front-door processes, kept for each, and their one special answer.

A request goes over them as it was built for the cluster, with one header more. When the other process says that it has no connection of the
cluster, it has done nothing: the request starts over elsewhere, once, whatever its verb, as long as all that was sent of it is still at hand.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from libs.common import errors
from libs.common.relay.ask import Question
from libs.common.relay.exchange import Exchange
from libs.common.relay.head import END, MAX_HEAD
from libs.common.relay.pool import Address, Pool
from libs.common.relay.status import NOT_HERE
from libs.common.relay.sweeper import Sweeper
from libs.common.relay.upstream import Conversation, Home, Upstream
from services.auth_proxy.config import parse_address
from services.auth_proxy.holders import Holder
from services.auth_proxy.hop import HEADER, NAME

_UNAVAILABLE = b"HTTP/1.1 503 "
_MARK = b"\r\n" + NOT_HERE + b"\r\n"
_KEPT = 64 * 1024
_DIAL_S = 2.0


def _nothing() -> None:
    """Nobody aimed this connection yet."""


class HopConnection(Upstream):
    """A connection to another process. `aim` comes before each use; `_sent` is what went out behind the head, None when it is too much."""

    __slots__ = ("_answer", "_line", "_missed", "_sent")

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._line = b""
        self._missed: Callable[[], None] = _nothing
        self._sent: bytes | None = None
        self._answer: bytes | None = None

    def aim(self, cluster_uid: str, missed: Callable[[], None]) -> HopConnection:
        """The next request is for this cluster; `missed` is called when the other side says that it has no connection of it."""
        self._line = f"{HEADER}: {cluster_uid}\r\n".encode("ascii")
        self._missed = missed
        return self

    def begin(self, conversation: Conversation) -> None:
        super().begin(conversation)
        self._sent = b""
        self._answer = b""

    def write(self, data: bytes) -> None:
        if self._line:
            end = data.index(b"\r\n") + 2
            line, self._line = self._line, b""
            self._sent = data[data.index(END) + len(END) :]
            data = data[:end] + line + data[end:]
        elif self._sent is not None:
            self._sent += data
        if self._sent is not None and len(self._sent) > _KEPT:
            self._sent = None
        super().write(data)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._conversation is None:
            super().data_received(data)
            return
        data = self._answer + data
        if data.startswith(_UNAVAILABLE[: len(data)]) and END not in data and len(data) < MAX_HEAD:
            self._answer = data  # the mark may still come
            return
        self._answer = None
        sent, self._sent = self._sent, None
        if not data.startswith(_UNAVAILABLE) or _MARK not in data[: data.find(END) + 2]:
            super().data_received(data)
            return
        self._missed()
        conversation = self._conversation
        if sent is not None and isinstance(conversation, Exchange | Question) and conversation.start_over(sent):
            self.close()
        else:
            super().data_received(data.replace(_MARK, b"\r\n", 1))


class Hops:
    """Pools by worker. Connections to one that is gone close by themselves; `forget` drops its pool."""

    def __init__(self, sweeper: Sweeper, tls: ssl.SSLContext | None, limit: int) -> None:
        self._sweeper = sweeper
        self._tls = tls
        self._limit = limit
        self._pools: dict[str, Pool] = {}

    def acquire(self, holder: Holder) -> HopConnection | None:
        """A kept connection to it."""
        pool = self._pools.get(holder.worker)
        upstream = pool.acquire() if pool is not None else None
        assert upstream is None or isinstance(upstream, HopConnection)
        return upstream

    async def open(self, holder: Holder) -> HopConnection:
        """A new one. Raises Unavailable."""
        pool = self._pools.get(holder.worker)
        if pool is None:
            address = self._address(holder)
            pool = self._pools[holder.worker] = Pool(
                lambda: address, sweeper=self._sweeper, connect_timeout_s=_DIAL_S, limit=self._limit, kind=HopConnection
            )
        upstream = await pool.open()
        assert isinstance(upstream, HopConnection)
        return upstream

    def keep_only(self, workers: set[str]) -> None:
        """Let go of the pools of all others, whose processes end or have ended: their idle connections are closed from here."""
        for gone in self._pools.keys() - workers:
            self._pools.pop(gone).close()

    def close(self) -> None:
        self.keep_only(set())

    def _address(self, holder: Holder) -> Address:
        name = "another process of the hub"
        if holder.unix and Path(holder.unix).exists():
            return Address(name, unix=Path(holder.unix))
        tls = self._tls
        if not holder.address or tls is None:
            raise errors.Unavailable(f"{name} holds the cluster's connections and cannot be reached from here")
        host, port = parse_address(holder.address)
        return Address(name, host, port, tls=tls, server_hostname=NAME)
