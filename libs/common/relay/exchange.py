"""One request and its response, between a session and an upstream connection: the state machine of the hot path.

The session feeds request bytes, the upstream connection feeds response bytes; both pass through unchanged behind the head. A
read that would overrun the other side's buffer stops the reading, nothing else does. When it ends, both connections are either
clean, and reused, or closed: there is no third state (CVE-2018-1002105).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import structlog

from libs.common import errors
from libs.common.relay import framing, status
from libs.common.relay.head import END, MAX_HEAD, RequestHead, ResponseHead, parse_response
from libs.common.relay.splice import Splice
from libs.common.relay.sweeper import NEVER

if TYPE_CHECKING:
    from libs.common.relay.decision import Relay
    from libs.common.relay.session import Session
    from libs.common.relay.upstream import Upstream

log = structlog.get_logger(component="relay")
T = TypeVar("T")
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_EARLY_LIMIT = 64 * 1024
_BODY_IDLE_S = 60.0
_MIN_BODY = 512
"""What a body must bring at least in that time: one byte a minute is no upload, it only holds a connection."""
_MAX_INTERIM = 32
"""Heads of 1xx before the answer; more are no progress, however fast they come."""
HOLD_PEER, HOLD_EARLY = 1, 2


class Exchange:
    """`status` is 0 until the response's head is known; the counters are of bodies and spliced bytes."""

    __slots__ = (
        "_close_client", "_early", "_followed", "_head_part", "_in", "_interim", "_opening", "_out", "_retried", "_reusable", "_seen", "bytes_in",
        "bytes_out", "error", "finished", "relay", "request", "session", "started", "status", "upstream",
    )  # fmt: skip

    def __init__(self, session: Session, request: RequestHead, relay: Relay) -> None:
        self.session = session
        self.request = request
        self.relay = relay
        self.upstream: Upstream | Splice | None = None
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.error = ""
        self.finished = False
        self.started = asyncio.get_running_loop().time()
        self._in = framing.of_request(request)
        self._out: framing.Framing | None = None
        self._early = b""
        self._head_part = b""
        self._opening: asyncio.Task[None] | None = None
        self._retried = False
        self._followed = False
        """What is asked now is a question of the hub's own, which changes nothing: the request itself has been answered."""
        self._reusable = not relay.upgrade
        self._close_client = False
        self._seen = 0
        self._interim = 0

    @property
    def request_done(self) -> bool:
        """All bytes of the request have come; for an upgrade what follows belongs to nobody until the 101."""
        return self._in.done

    def start(self) -> None:
        if self.relay.watcher is not None:
            self.relay.watcher.began(self)
        if not self._in.done:
            self.session.deadline = self.started + _BODY_IDLE_S
        ready = self.relay.source.acquire()
        if ready is not None:
            self._attach(ready)
        else:
            self._open()

    # the request's way

    def request_data(self, data: bytes) -> bytes:
        """Pass on what belongs to the request; returns what follows it."""
        try:
            end = self._in.scan(data)
        except errors.BadRequest as exc:
            self.fail(exc)
            return b""
        piece, rest = (data, b"") if end == len(data) else (data[:end], data[end:])
        self.bytes_in += len(piece)
        if self.relay.tap is not None and not self.tapped(self.relay.tap.request_bytes, piece):
            return b""
        if self._in.done and self._out is None:
            self._await_answer()
        if self.upstream is None:
            self._early += piece
            if len(self._early) > _EARLY_LIMIT:
                self.session.hold(HOLD_EARLY)
        else:
            self.upstream.write(piece)
        return rest

    def client_writable(self, writable: bool) -> None:
        if self.upstream is not None and not isinstance(self.upstream, Splice):
            (self.upstream.release if writable else self.upstream.hold)(HOLD_PEER)

    def client_gone(self) -> None:
        """The client is away: nobody reads the answer, so the far side is told by closing."""
        self.error = self.error or "the client went away"
        self._drop_upstream()
        self._over()

    def timed_out(self, now: float) -> None:
        """The session's deadline passed: of a body that does not come, of an answer, or of the rest of an answer."""
        if self._out is not None:
            self._answer_timed_out(now)
        elif self._in.done:
            self.fail(errors.Timeout("no answer came in time: the request may or may not have taken effect"))
        elif self._is_starving() and self.upstream is not None and not self.upstream.write_paused:
            self.fail(status.RequestTimeout("the request's body stopped coming"))
        else:
            self._seen = self.bytes_in
            self.session.deadline = now + _BODY_IDLE_S

    def _is_starving(self) -> bool:
        # Whoever answers late by nature (a proxied service) may also be asked slowly.
        least = _MIN_BODY if self.relay.first_byte_s is not None else 1
        return self.bytes_in - self._seen < least

    def _answer_timed_out(self, now: float) -> None:
        limit = self.relay.first_byte_s
        if limit is None:
            self.session.deadline = NEVER
        elif self.bytes_out == self._seen and not self.session.write_paused:
            self.fail(errors.Timeout("the answer stopped in the middle"))
        else:
            self._seen = self.bytes_out
            self.session.deadline = now + limit

    # the connection

    def _open(self) -> None:
        self._opening = self.session.engine.spawn(self._wait_open(), "relay-open")

    async def _wait_open(self) -> None:
        try:
            upstream = await self.relay.source.open()
        except errors.HerdsmanError as exc:
            self.fail(exc)
            return
        except Exception:
            self.fail(errors.Internal("internal error: the log has the details"))
            raise
        if self.finished:
            upstream.end(clean=True)
        else:
            self._attach(upstream)

    def _attach(self, upstream: Upstream) -> None:
        self._opening = None
        self.upstream = upstream
        if upstream.closed:
            # It died between being opened and being used.
            self.upstream_ended(None)
            return
        upstream.begin(self)
        early, self._early = self._early, b""
        upstream.write(self.relay.head + early if early else self.relay.head)
        if self._in.done:
            self._await_answer()
        if self.session.write_paused:
            upstream.hold(HOLD_PEER)
        if early:
            self.session.release(HOLD_EARLY)

    def _await_answer(self) -> None:
        limit = self.relay.first_byte_s
        self.session.deadline = NEVER if limit is None else asyncio.get_running_loop().time() + limit

    def _await_rest(self, had: int) -> None:
        """A short answer may not stop in the middle for longer than it may take to begin; a watch may."""
        limit = self.relay.first_byte_s
        self._seen = had
        self.session.deadline = NEVER if limit is None else asyncio.get_running_loop().time() + limit

    def upstream_writable(self, writable: bool) -> None:
        (self.session.release if writable else self.session.hold)(HOLD_PEER)

    def upstream_ended(self, error: BaseException | None) -> None:
        upstream, self.upstream = self.upstream, None
        if self._out is not None:
            if isinstance(self._out, framing.UntilClose) and error is None:
                self._finish(clean=False)
            else:
                self.fail(status.BadGateway("the connection was lost in the middle of the answer"))
        elif self._is_stale(upstream):
            self._retried = True
            self._open()
        else:
            self.fail(status.BadGateway("the connection was lost before an answer: the request may have taken effect"))

    def _is_stale(self, upstream: Upstream | Splice | None) -> bool:
        """A kept connection that the far side had closed meanwhile: one more try is safe, and only then."""
        return (
            upstream is not None and not isinstance(upstream, Splice) and upstream.used and not self._retried and not self._head_part
            and not self.relay.upgrade and (self._followed or (self.request.method in _SAFE and not self.request.has_body))
        )  # fmt: skip

    def start_over(self, body: bytes) -> bool:
        """The far side has done nothing with the request, and says so: send it by another connection, once. False: it can't be.

        `body` is all that went out behind the head. For whoever stands between two relays (an internal hop).
        """
        if self.finished or self._retried or self._out is not None or isinstance(self.upstream, Splice):
            return False
        self._retried = True
        self.upstream = None
        self._early = body + self._early
        self._open()
        return True

    # the response's way

    def response_data(self, data: bytes) -> None:
        if self._out is None:
            self._on_head_bytes(data)
            return
        try:
            end = self._out.scan(data)
        except errors.BadRequest as exc:
            self.fail(status.BadGateway(f"the answer is broken: {exc.message}"))
            return
        extra = end < len(data)
        self.bytes_out += end
        if extra:
            data = data[:end]
        if self.relay.tap is not None and not self.tapped(self.relay.tap.response_bytes, data):
            return
        self.session.write(data)
        if self._out.done:
            self._finish(clean=not extra)

    def _on_head_bytes(self, data: bytes) -> None:
        if self._head_part:
            data, self._head_part = self._head_part + data, b""
        try:
            while data:
                end = data.find(END)
                if end < 0 or end > MAX_HEAD:
                    self._head_part = data
                    if len(data) > MAX_HEAD:
                        raise status.BadGateway("the answer's head is larger than 64 KiB")
                    return
                head = parse_response(data[: end + 4])
                data = data[end + 4 :]
                if head.status >= 200 or head.status == 101:
                    self._on_head(head, data)
                    return
                self._on_interim(head)
        except errors.BadRequest as exc:
            self.fail(status.BadGateway(f"the answer cannot be relayed: {exc.message}"))
        except errors.HerdsmanError as exc:
            self.fail(exc)

    def _on_interim(self, head: ResponseHead) -> None:
        self._interim += 1
        if self._interim > _MAX_INTERIM:
            raise status.BadGateway("the far side announces an answer again and again, and gives none")
        if head.status == 100 and self.request.expects_continue and self._interim == 1:
            self.session.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _on_head(self, head: ResponseHead, rest: bytes) -> None:
        if head.status == 101:
            self._switch(head, rest)
            return
        following = self.relay.then(head) if self.relay.then is not None else None
        if following is not None:
            self._follow(following)
            return
        out = framing.of_response(self.request.method, head)
        self._close_client = self._closes_client() or isinstance(out, framing.UntilClose)
        built = self.relay.reshape(head, self._close_client)
        tap = self.relay.tap
        if tap is not None and not self.tapped(tap.response_head, head):
            return
        # Before anything counts as answered: a body that is broken from its first byte can still become an error.
        end = out.scan(rest) if rest else 0
        self._out = out
        self._reusable = self._reusable and not head.close
        self.status = head.status
        if not out.done:
            self._await_rest(end)
            if self.relay.first_byte_s is None:
                # It may stay for hours, beside thousands of others, and nothing is sent anew now.
                self.request.block.forget()
                self.relay.head = b""
        self.bytes_out += end
        if tap is not None and not self.tapped(tap.response_bytes, rest[:end]):
            return
        self.session.write(built + rest[:end])
        if out.done:
            self._finish(clean=end == len(rest))

    def _follow(self, relay: Relay) -> None:
        """This answer says only that the real one is to be had elsewhere: it is dropped, with its connection, and that one is fetched."""
        if not self._in.done:
            raise status.BadGateway("the far side answered before it had the whole request")
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.close()
        relay.watcher, relay.tap = self.relay.watcher, self.relay.tap
        self.relay = relay
        self._reusable, self._retried, self._followed = True, False, True
        ready = relay.source.acquire()
        if ready is not None:
            self._attach(ready)
        else:
            self._open()

    def _closes_client(self) -> bool:
        # After an upgrade that was refused nothing may follow. A request that is not read to its end leaves bytes of it on the connection: they are never read as a request.
        return bool(self.request.close or not self._in.done or self.relay.upgrade or self.session.engine.draining)

    def _switch(self, head: ResponseHead, rest: bytes) -> None:
        if not self.relay.upgrade or head.upgrade != self.relay.upgrade:
            raise status.BadGateway("the far side switched to a protocol that nobody asked for")
        upstream = self.upstream
        assert upstream is not None
        assert not isinstance(upstream, Splice)
        built = self.relay.reshape(head, False)
        if self.relay.tap is not None and not self.tapped(self.relay.tap.response_head, head):
            return
        self.status = 101
        self.session.write(built)
        self.upstream = Splice(self, self.session, upstream, to_client=rest)

    def tapped(self, see: Callable[[T], None], what: T) -> bool:
        """Show something to the tap. False: it could not take it, and the exchange is over."""
        try:
            see(what)
        except errors.HerdsmanError as exc:
            self.fail(exc)
        except Exception:
            log.exception("tap_failed")
            self.fail(errors.Internal("internal error: the log has the details"))
        else:
            return True
        return False

    # the end

    def end_stream(self, last: bytes = b"") -> bool:
        """End an answer without known length here and now, as its own end would, after `last`. False: not at this moment.

        Only between two chunks: what the client has then is whole. It asks again as after any end of a watch.
        """
        out = self._out
        if self.finished or not isinstance(out, framing.Chunked) or not out.between_chunks:
            return False
        self.session.write((b"%x\r\n%b\r\n" % (len(last), last) if last else b"") + b"0\r\n\r\n")
        self._drop_upstream()
        self._over()
        self.session.exchange_over(close=True)
        return True

    def splice_ended(self, error: str) -> None:
        """Both connections of the splice are closed or closing by themselves."""
        self.error = self.error or error
        self.upstream = None
        self.session.leave()
        self._over()

    def _finish(self, *, clean: bool) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None and not isinstance(upstream, Splice):
            upstream.end(clean and self._in.done and self._reusable)
        self._over()
        self.session.exchange_over(close=self._close_client)

    def fail(self, error: errors.HerdsmanError) -> None:
        """End it now: as an answer if none began, else by cutting the connections. Revocation calls it too."""
        if self.finished:
            return
        self.error = error.message
        spliced = isinstance(self.upstream, Splice)
        self._drop_upstream()
        if spliced:
            return
        answered = self._out is not None
        if not answered:
            self.status = error.http_status
        self._over()
        if answered:
            # Part of the answer is out: only a torn connection says that the rest is missing.
            self.session.abort()
        else:
            self.session.refuse(error, close=not self._in.done or bool(self.relay.upgrade))

    def _drop_upstream(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None and opening is not asyncio.current_task():
            opening.cancel()
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.close()

    def _over(self) -> None:
        if not self.finished:
            self.finished = True
            self._early = b""
            if self.relay.watcher is not None:
                self.relay.watcher.ended(self)
