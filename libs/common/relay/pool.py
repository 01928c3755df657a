"""Kept connections to one server, newest first, so that the others grow old and close. Dials when none is at hand."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from libs.common import errors
from libs.common.relay import status
from libs.common.relay.sweeper import NEVER, Sweeper
from libs.common.relay.upstream import Home, Upstream


@dataclass(frozen=True, slots=True)
class Address:
    """Where to dial: a TCP address, with TLS or not, or a Unix socket. `name` is what errors call it."""

    name: str
    host: str = ""
    port: int = 0
    unix: Path | None = None
    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None

    @property
    def authority(self) -> bytes:
        """What the Host header says."""
        if self.unix is not None:
            return b"localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}".encode("ascii")


class Fresh:
    """A `decision.Source` that never gives a kept connection: what upgrades get."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def acquire(self) -> Upstream | None:
        return None

    async def open(self) -> Upstream:
        return await self._pool.open()


class Pool:
    """A `decision.Source`. `address` is asked at each dial, so that it may change (a kubeconfig that was renewed)."""

    def __init__(
        self,
        address: Callable[[], Address],
        *,
        sweeper: Sweeper,
        connect_timeout_s: float = 5.0,
        max_idle: int = 64,
        max_idle_s: float = 30.0,
        limit: int = 4096,
        kind: Callable[[Home], Upstream] = Upstream,
    ) -> None:
        self._address = address
        self._sweeper = sweeper
        self._connect_timeout_s = connect_timeout_s
        self._max_idle = max_idle
        self._max_idle_s = max_idle_s
        self._limit = limit
        self._kind = kind
        self._idle: deque[Upstream] = deque()
        self._open = 0
        self._closed = False
        self.deadline = NEVER
        self.fresh = Fresh(self)

    def acquire(self) -> Upstream | None:
        while self._idle:
            upstream = self._idle.pop()
            if upstream.idle and not upstream.transport.is_closing():
                return upstream
        return None

    async def open(self) -> Upstream:
        address = self._address()
        if self._open >= self._limit:
            raise errors.Unavailable(f"{address.name} is busy: {self._limit} connections are in use", retry_after_s=1)
        loop = asyncio.get_running_loop()
        self._open += 1
        handshake_s = self._connect_timeout_s if address.tls else None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                if address.unix is not None:
                    _, upstream = await loop.create_unix_connection(lambda: self._kind(self), str(address.unix))
                else:
                    _, upstream = await loop.create_connection(
                        lambda: self._kind(self), address.host, address.port, ssl=address.tls,
                        server_hostname=address.server_hostname if address.tls else None, ssl_handshake_timeout=handshake_s,
                    )  # fmt: skip
        except TimeoutError as exc:
            self._open -= 1
            raise errors.Unavailable(f"{address.name} did not answer within {self._connect_timeout_s:g} s") from exc
        except ssl.SSLError as exc:
            self._open -= 1
            raise status.BadGateway(_explain_tls(address.name, exc)) from exc
        except OSError as exc:
            self._open -= 1
            raise errors.Unavailable(f"{address.name} cannot be reached: {exc.strerror or exc}") from exc
        except BaseException:
            self._open -= 1
            raise
        return upstream

    def put_back(self, upstream: Upstream) -> None:
        if self._closed:
            upstream.close()
            return
        self._idle.append(upstream)
        if len(self._idle) > self._max_idle:
            self._idle.popleft().close()
        if self.deadline == NEVER:
            self.deadline = upstream.idle_since + self._max_idle_s
            self._sweeper.add(self)

    def lost(self, upstream: Upstream) -> None:
        self._open -= 1
        if upstream in self._idle:
            self._idle.remove(upstream)

    def expire(self, now: float) -> None:
        """Close what was idle for too long; the oldest are on the left."""
        while self._idle and self._idle[0].idle_since + self._max_idle_s <= now:
            self._idle.popleft().close()
        self.deadline = self._idle[0].idle_since + self._max_idle_s if self._idle else NEVER
        if self.deadline == NEVER:
            self._sweeper.discard(self)

    def close(self) -> None:
        """Close all idle connections, and those in use when they come back: what they were dialled with is not in use any more."""
        self._closed = True
        while self._idle:
            self._idle.popleft().close()
        self._sweeper.discard(self)


def _explain_tls(name: str, exc: ssl.SSLError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the certificate of {name} is not accepted: {exc.verify_message or exc.reason or 'no reason given'}"
    return f"TLS with {name} failed: {exc.reason or 'no reason given'}"
