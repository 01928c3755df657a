"""The engine: what all sessions share, and the listening socket of the front door."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from libs.common import errors
from libs.common.relay.decision import Decision, Later, Refusal, Route
from libs.common.relay.drain import Ends, StreamEnder, let_finish
from libs.common.relay.head import RequestHead
from libs.common.relay.session import Session
from libs.common.relay.sweeper import Sweeper
from libs.common.relay.vanished import VanishedPeers

log = structlog.get_logger(component="relay")
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds are coarse: the engine's clock ticks once a second."""

    head_s: float = 10.0
    """How long a request's head may take."""
    idle_s: float = 120.0
    """How long a connection may rest between requests: longer than clients keep theirs (Go: 90 s), so that they close first."""
    sessions: int = 20_000
    vanished_s: float = 30.0
    """How long a peer may acknowledge nothing of what is under way to it: as long as the keep-alive gives one that is away for a moment."""


def _ignore(_session: Session) -> None:
    """Nobody asked to be told."""


def _ignore_error(_session: Session, _error: errors.HerdsmanError) -> None:
    """Nobody asked to be told."""


_BUG = "internal error: the log of the hub has the details"


class Engine:
    """Sessions with one route. The hooks tell `dial` when a connection begins to serve and when it rests again; `on_malformed` hears of
    requests that are refused without the route, or in spite of it, so that they leave a trace, too."""

    def __init__(
        self,
        route: Route,
        *,
        limits: Limits | None = None,
        sweeper: Sweeper | None = None,
        on_busy: Callable[[Session], None] = _ignore,
        on_idle: Callable[[Session], None] = _ignore,
        on_closed: Callable[[Session], None] = _ignore,
        on_malformed: Callable[[Session, errors.HerdsmanError], None] = _ignore_error,
    ) -> None:
        self.limits = limits or Limits()
        self.sweeper = sweeper or Sweeper()
        self.sessions: set[Session] = set()
        self.draining = False
        """Every answer from now on is the last of its connection."""
        self._closed = False
        self.session_busy = on_busy
        self.session_idle = on_idle
        self.session_malformed = on_malformed
        self._route = route
        self._on_closed = on_closed
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty: asyncio.Event | None = None
        self._vanished = VanishedPeers(self.sessions, self.limits.vanished_s)

    def decide(self, head: RequestHead, session: Session) -> Decision:
        """The route's decision; its error is a decision too, and a bug is answered as such and logged."""
        try:
            return self._route(head, session)
        except errors.HerdsmanError as exc:
            return Refusal(exc)
        except Exception:
            log.exception("request_failed", method=head.method.decode("ascii", "replace"), peer=session.peer)
            return Refusal(errors.Internal(_BUG), close=True)

    async def decide_later(self, later: Later, head: RequestHead, session: Session) -> Decision:
        """The decision of a route that had to wait; errors and bugs as for `decide`."""
        try:
            return await later.decide()
        except errors.HerdsmanError as exc:
            return Refusal(exc)
        except Exception:
            log.exception("request_failed", method=head.method.decode("ascii", "replace"), peer=session.peer)
            return Refusal(errors.Internal(_BUG), close=True)

    def session_opened(self, session: Session) -> None:
        if self._closed or len(self.sessions) >= self.limits.sessions:
            session.transport.abort()
            session.closed = True
            return
        if not self.sessions:
            self.sweeper.add(self._vanished)
        self.sessions.add(session)
        self.sweeper.add(session)

    def session_closed(self, session: Session) -> None:
        self.sessions.discard(session)
        self.sweeper.discard(session)
        if not self.sessions:
            self.sweeper.discard(self._vanished)
        self._on_closed(session)
        if self._empty is not None and not self.sessions:
            self._empty.set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task for what can't be done at once; the engine owns it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def begin_drain(self, rest_s: float) -> None:
        """Answers say `Connection: close` from now on; connections that rest are closed after `rest_s`, spread over its second half.

        Connections that were accepted already, or still are, get an answer to their request.
        """
        self.draining = True
        self.limits = replace(self.limits, idle_s=rest_s, head_s=min(self.limits.head_s, max(rest_s, 1.0)))
        now = asyncio.get_running_loop().time()
        for session in [s for s in self.sessions if s.idle]:
            session.deadline = min(session.deadline, now + rest_s * random.uniform(0.5, 1.0))

    async def stop(self, grace_s: float = 5.0, *, rest_s: float = 0.0, ends: Ends = let_finish) -> None:
        """Let what runs finish for `grace_s`, then cut. `rest_s` as for `begin_drain`; 0 closes what rests at once, and takes nothing more.

        `ends` says what becomes of a stream before that (`drain`).
        """
        if rest_s:
            self.begin_drain(rest_s)
        else:
            self.draining = self._closed = True
            for session in [s for s in self.sessions if s.idle]:
                session.close()
        ender = asyncio.create_task(StreamEnder(self.sessions, grace_s, ends).run(), name="stream-ender")
        try:
            if self.sessions:
                self._empty = asyncio.Event()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace_s):
                        await self._empty.wait()
        finally:
            ender.cancel()
            await asyncio.gather(ender, return_exceptions=True)
        self._closed = True
        for session in list(self.sessions):
            session.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.sweeper.close()

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("relay_task_failed", task=task.get_name(), exc_info=task.exception())


async def listen_on(
    engine: Engine, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None
) -> list[asyncio.Server]:
    """Accept connections for `engine` on sockets that somebody else bound: they are listening already."""
    return [
        await asyncio.get_running_loop().create_server(
            lambda: Session(engine), sock=sock, ssl=tls, backlog=BACKLOG,
            ssl_handshake_timeout=10.0 if tls else None, ssl_shutdown_timeout=60.0 if tls else None,
        )
        for sock in sockets
    ]  # fmt: skip


async def listen(
    engine: Engine, host: str, port: int, tls: ssl.SSLContext | None, *, backlog: int = BACKLOG
) -> asyncio.Server:
    """Accept connections for `engine`. Raises Unavailable when the address can't be had."""
    try:
        return await asyncio.get_running_loop().create_server(
            lambda: Session(engine), host, port, ssl=tls, backlog=backlog, family=socket.AF_UNSPEC,
            ssl_handshake_timeout=10.0 if tls else None, ssl_shutdown_timeout=60.0 if tls else None,
        )  # fmt: skip
    except OSError as exc:
        raise errors.Unavailable(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
