"""The side that requests come from: one connection, one request at a time, what was pipelined waits.

Accepted by `server` at the hub, dialled by `dial` at an agent; the same either way. It asks the engine's route what to do with
each head and hands relayed requests to an `exchange`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from libs.common import errors
from libs.common.relay import sockets, status
from libs.common.relay.decision import Answer, Decision, Later, Refusal, Relay, TakeOver
from libs.common.relay.exchange import Exchange
from libs.common.relay.head import END, MAX_HEAD, Block, RequestHead, parse_request
from libs.common.relay.sweeper import NEVER
from libs.common.relay.waiting import Waiting

if TYPE_CHECKING:
    from libs.common.relay.server import Engine

_REMEMBERED_BYTES = 16 * 1024
"""Some thirty fields, with a token of any length: what clients of Kubernetes send."""
_STASH_LIMIT = 64 * 1024
_LINGER_S = 2.0
HOLD_STASH = 4


class Session(asyncio.Protocol):
    """Invariant: bytes that were not asked for are never read as a request; after `close` nothing is read at all.

    `memo` is for routes: what they remember of this connection (the nonce of a handshake).
    """

    __slots__ = (
        "_block", "_exchange", "_holds", "_lingering", "_stash", "closed", "deadline", "engine", "memo", "peer", "requests", "transport",
        "write_paused",
    )  # fmt: skip

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.memo: Any = None
        self.peer = ""
        self.closed = False
        self.write_paused = False
        self.requests = 0
        self.deadline = NEVER
        self._block: Block | None = None
        self._exchange: Exchange | Waiting | None = None
        self._stash = b""
        self._holds = 0
        self._lingering = False
        self.transport: asyncio.Transport

    @property
    def idle(self) -> bool:
        """Between requests."""
        return self._exchange is None and not self.closed and not self._stash

    @property
    def exchange(self) -> Exchange | None:
        """The request that is under way."""
        return self._exchange if isinstance(self._exchange, Exchange) else None

    # what the engine and the exchange call

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

    def refuse(self, error: errors.HerdsmanError, *, close: bool) -> None:
        """Answer the request at hand with an error."""
        exchange, self._exchange = self._exchange, None
        if self.closed:
            return
        bodiless = exchange is not None and exchange.request.method == b"HEAD"
        close = close or self.engine.draining or (exchange is not None and exchange.request.close)
        self.write(status.render_error(error, close=close, bodiless=bodiless))
        self._next(close)

    def exchange_over(self, *, close: bool) -> None:
        self._exchange = None
        self._next(close)

    def give_away(self) -> tuple[asyncio.Transport, bytes]:
        """The transport and what was read but not used; the session keeps only its place in the engine's list."""
        stash, self._stash = self._stash, b""
        self.deadline = NEVER
        self.engine.sweeper.discard(self)
        if self._holds:
            self._holds = 0
            self.transport.resume_reading()
        return self.transport, stash

    def leave(self) -> None:
        """Forget this session: its transport belongs to somebody else, or is gone."""
        if not self.closed:
            self.closed = True
            self.deadline = NEVER
            self.engine.session_closed(self)

    def abort(self) -> None:
        """Close at once, so that the client sees a torn connection; an exchange under way goes with it."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and not exchange.finished:
            exchange.client_gone()
        if not self.closed:
            self.transport.abort()
            self.leave()

    def close(self) -> None:
        """Close after what is queued went out."""
        if not self.closed:
            sockets.close_gently(self.transport)
            self.leave()

    def expire(self, now: float) -> None:
        """A deadline passed (`sweeper`): of the head, of the idle connection, of the answer, of lingering."""
        if self._exchange is not None:
            self.deadline = NEVER
            self._exchange.timed_out(now)
        elif self._stash and not self._lingering:
            self.deadline = NEVER
            self._refuse_head(status.RequestTimeout("the request's head did not come in time"))
        else:
            self.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.adopt(cast(asyncio.Transport, transport))

    def adopt(self, transport: asyncio.Transport) -> None:
        """Take a transport, a new one or one that was dialled and shaken hands on."""
        self.transport = transport
        sockets.tune(transport)
        self.peer = sockets.find_peer(transport)
        self.deadline = asyncio.get_running_loop().time() + self.engine.limits.head_s
        self.engine.session_opened(self)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is not None:
            if exchange.request_done:
                self._keep(data)
            else:
                rest = exchange.request_data(data)
                if rest:
                    self._keep(rest)
        elif not self._lingering and not self.closed:
            self._on_head_bytes(data)

    def eof_received(self) -> bool:
        # Half-closing clients of HTTP do not exist in practice; one that goes away in the middle of a watch does.
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        exchange, self._exchange = self._exchange, None
        self.leave()
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        self.write_paused = True
        if self._exchange is not None:
            self._exchange.client_writable(False)

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._exchange is not None:
            self._exchange.client_writable(True)

    # requests

    def _keep(self, data: bytes) -> None:
        self._stash += data
        if len(self._stash) > _STASH_LIMIT:
            self.hold(HOLD_STASH)

    def _on_head_bytes(self, data: bytes) -> None:
        if self._stash:
            data = self._stash + data
        end = data.find(END)
        if end < 0 or end > MAX_HEAD:
            if len(data) > MAX_HEAD:
                self._stash = b""
                self._refuse_head(status.HeadTooLarge("the request's head is larger than 64 KiB"))
            else:
                if not self._stash:
                    self.deadline = asyncio.get_running_loop().time() + self.engine.limits.head_s
                self._stash = data
            return
        end += 4
        self._stash = data[end:]
        self.deadline = NEVER
        try:
            head = parse_request(data if end == len(data) else data[:end], self._block)
        except errors.BadRequest as exc:
            self._refuse_head(exc)
            return
        # A connection that rests must not hold what a stranger made large.
        self._block = head.block if head.block.weight <= _REMEMBERED_BYTES else None
        self._on_request(head)

    def _refuse_head(self, error: errors.HerdsmanError) -> None:
        self.engine.session_malformed(self, error)
        self.refuse(error, close=True)

    def _on_request(self, head: RequestHead) -> None:
        self.requests += 1
        decision = self.engine.decide(head, self)
        if isinstance(decision, Later):
            self._exchange = Waiting(self, head, decision)
            self.engine.session_busy(self)
        else:
            self._act(head, decision)

    def decided(self, head: RequestHead, decision: Decision) -> None:
        """What `Waiting` waited for: go on as if it had been decided at once."""
        self._exchange = None
        if not self.closed:
            self.release(HOLD_STASH)
            self._act(head, decision)

    def _act(self, head: RequestHead, decision: Decision) -> None:
        if isinstance(decision, Relay):
            if not head.minor:
                decision = Refusal(errors.BadRequest("HTTP/1.0 is not relayed: use HTTP/1.1"), close=True)
            elif head.upgrade and head.has_body:
                decision = Refusal(errors.BadRequest("a request to switch protocols has no body"), close=True)
            if isinstance(decision, Refusal):
                self.engine.session_malformed(self, decision.error)
        if isinstance(decision, Relay):
            exchange = self._exchange = Exchange(self, head, decision)
            self.engine.session_busy(self)
            if self._stash and not exchange.request_done:
                stash, self._stash = self._stash, b""
                exchange.start()
                self.data_received(stash)
            else:
                exchange.start()
        elif isinstance(decision, TakeOver):
            self.write(decision.head)
            decision.accept(self)
        elif isinstance(decision, Later):
            self._act(head, Refusal(errors.Internal("internal error: a request was to wait twice"), close=True))
        else:
            self._answer(head, decision)

    def _answer(self, head: RequestHead, decision: Answer | Refusal) -> None:
        # The body of a request that is answered here is not read: the connection ends instead.
        close = decision.close or head.close or head.has_body or bool(head.upgrade) or self.engine.draining
        bodiless = head.method == b"HEAD"
        if isinstance(decision, Refusal):
            self.write(status.render_error(decision.error, close=close, bodiless=bodiless))
        else:
            self.write(
                status.render(
                    decision.status, decision.content_type, decision.body,
                    headers=decision.headers, close=close, bodiless=bodiless,
                )
            )  # fmt: skip
        self._next(close)

    def _next(self, close: bool) -> None:
        """The request is over: end the connection, or read the next one."""
        if self.closed:
            return
        if close or self.transport.is_closing():
            self._linger()
            return
        if self._holds:
            self._holds = 0
            self.transport.resume_reading()
        self.deadline = asyncio.get_running_loop().time() + self.engine.limits.idle_s
        self.engine.session_idle(self)
        if self._stash:
            # Not from here: a thousand pipelined requests would be a thousand frames on the stack.
            asyncio.get_running_loop().call_soon(self._read_stash)

    def _read_stash(self) -> None:
        if self._exchange is None and self._stash:
            stash, self._stash = self._stash, b""
            self.data_received(stash)

    def _linger(self) -> None:
        """Close, but go on reading for a moment: bytes left unread would make the kernel reset the answer away (RFC 9112 9.6)."""
        self._stash = b""
        self._lingering = True
        if self._holds:
            self._holds = 0
            self.transport.resume_reading()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
            self.deadline = asyncio.get_running_loop().time() + _LINGER_S
        else:
            self.close()
