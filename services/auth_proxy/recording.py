"""Recorded sessions: exec and attach calls that a policy names are decoded while they pass and stored, or they don't pass.

`Recorder.wrap` turns a relay into a recorded one, by three of its parts: the source waits until the recording's head is stored, so that
a session which can't be recorded never begins; the tap decodes every byte before it goes on; the watcher writes the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from libs.common import errors
from libs.common.recording.chain import Sealer, Signs
from libs.common.recording.channels import Ending
from libs.common.recording.decoder import Decoder, make_decoder
from libs.common.recording.events import ERROR, OUTPUTS, STDIN, Event, Piece
from libs.common.recording.log import RecordingLog
from libs.common.recording.model import Facts, Outcome
from libs.common.recording.writer import PATIENCE_S, Writer
from libs.common.relay.decision import Relay, Source, Tap, Watcher
from libs.common.relay.exchange import Exchange
from libs.common.relay.head import ResponseHead
from libs.common.relay.splice import Splice
from libs.common.relay.upstream import Upstream

log = structlog.get_logger(component="recording")
DRAIN_S = 3.0


class Recorder:
    """All recorded sessions of this process. `run` is the owner of their writers."""

    def __init__(self, stream: RecordingLog, signer: Signs, now: Callable[[], datetime]) -> None:
        self._stream = stream
        self._signer = signer
        self.now = now
        self._tasks: asyncio.TaskGroup | None = None
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """Recordings under way."""
        return len(self._writing)

    async def run(self) -> None:
        """Keep the writers, for ever."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await asyncio.Event().wait()

    async def drain(self) -> None:
        """At the end, when all sessions are cut: let the writers store what they have."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=DRAIN_S)

    def wrap(self, relay: Relay, facts: Facts) -> Relay:
        """The same relay, recorded."""
        session = _Session(self, facts, relay.watcher)
        return replace(
            relay,
            source=_Recorded(relay.source, session),
            tap=session if relay.tap is None else _Both(session, relay.tap),
            watcher=session,
        )

    def spawn(self, session: _Session) -> None:
        if self._tasks is None:
            raise errors.Unavailable("the front door is only starting: sessions can't be recorded yet")
        task = self._tasks.create_task(session.writer.run(), name="recording")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def make_writer(self, session: _Session) -> Writer:
        return Writer(self._stream, Sealer(self._signer), hold=session.hold, failed=session.failed)


@dataclass(slots=True)
class _Recorded:
    """A source whose connections are there only when the recording has begun."""

    inner: Source
    session: _Session

    def acquire(self) -> Upstream | None:
        return None

    async def open(self) -> Upstream:
        await self.session.begin()
        return self.inner.acquire() or await self.inner.open()


class _Session:
    """One recorded session: a tap and a watcher of its exchange."""

    def __init__(self, recorder: Recorder, facts: Facts, watcher: Watcher | None) -> None:
        self.writer = recorder.make_writer(self)
        self._recorder = recorder
        self._facts = facts
        self._watcher = watcher
        self._exchange: Exchange | None = None
        self._decoder: Decoder | None = None
        self._ending = Ending()
        self._begun = False
        self._started = asyncio.get_running_loop().time()
        self._output_bytes = self._input_bytes = 0

    async def begin(self) -> None:
        """Store the head. Raises Unavailable, which refuses the call."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.writer.begin(self._facts)
            self._recorder.spawn(self)
        except (errors.HerdsmanError, TimeoutError) as exc:
            log.warning("recording_not_begun", recording=self._facts.id, cluster=self._facts.cluster, error=str(exc))
            raise errors.Unavailable(
                "this session has to be recorded, and recordings can't be stored now: it was not started"
            ) from exc
        self._begun = True

    # the watcher

    def began(self, exchange: Exchange) -> None:
        self._exchange = exchange
        if self._watcher is not None:
            self._watcher.began(exchange)

    def ended(self, exchange: Exchange) -> None:
        if self._begun:
            self.writer.finish(self._outcome(exchange))
        if self._watcher is not None:
            self._watcher.ended(exchange)

    # the tap

    def request_bytes(self, data: bytes) -> None:
        if not data:
            return
        if self._decoder is None:
            raise errors.BadRequest("a session that is recorded takes no bytes before it has begun")
        for piece in self._decoder.from_client(data):
            if piece.channel == STDIN:
                self._input_bytes += len(piece.data)
                if not self._facts.input_recorded:
                    continue
            self._put(piece)

    def response_head(self, head: ResponseHead) -> None:
        if head.status == 101:
            self._decoder = make_decoder(
                head.upgrade,
                subprotocol=b",".join(head.values(b"sec-websocket-protocol")),
                extensions=b",".join(head.values(b"sec-websocket-extensions")),
                stream_protocol=head.value(b"x-stream-protocol-version"),
            )

    def response_bytes(self, data: bytes) -> None:
        if self._decoder is None or not data:
            # The body of an answer that refused the session: not the session's.
            return
        for piece in self._decoder.from_server(data):
            if piece.channel == ERROR:
                self._ending.feed(piece.data)
            elif piece.channel in OUTPUTS:
                self._output_bytes += len(piece.data)
            self._put(piece)

    def _put(self, piece: Piece) -> None:
        at_ms = int((asyncio.get_running_loop().time() - self._started) * 1000)
        self.writer.put(Event(at_ms, piece.channel, piece.data))

    # what the writer says

    def hold(self, wanted: bool) -> None:
        splice = self._splice
        if splice is not None:
            (splice.hold if wanted else splice.release)()

    def failed(self, error: errors.HerdsmanError) -> None:
        """The recording can't go on, so the session doesn't: told to the client where its protocol has a place for it."""
        exchange, splice = self._exchange, self._splice
        if exchange is None or exchange.finished:
            log.error("recording_unfinished", recording=self._facts.id, error=error.message)
            return
        log.error(
            "session_ended_unrecorded", recording=self._facts.id, cluster=self._facts.cluster, error=error.message
        )
        words = self._decoder.last_words(f"herdsman: {error.message}") if self._decoder is not None else b""
        if splice is None or not words:
            exchange.fail(error)
            return
        exchange.error = error.message
        splice.end_with(words)

    @property
    def _splice(self) -> Splice | None:
        upstream = self._exchange.upstream if self._exchange is not None else None
        return upstream if isinstance(upstream, Splice) else None

    def _outcome(self, exchange: Exchange) -> Outcome:
        code, message = self._ending.read()
        took_s = asyncio.get_running_loop().time() - self._started
        return Outcome(
            ended=self._recorder.now(),
            duration_ms=int(took_s * 1000),
            http_status=exchange.status,
            protocol=self._decoder.protocol if self._decoder is not None else "",
            exit_code=code,
            message=message or exchange.error,
            output_bytes=self._output_bytes,
            input_bytes=self._input_bytes,
        )


@dataclass(slots=True)
class _Both:
    """Two taps of one exchange; either may end it."""

    first: Tap
    second: Tap

    def request_bytes(self, data: bytes) -> None:
        self.first.request_bytes(data)
        self.second.request_bytes(data)

    def response_head(self, head: ResponseHead) -> None:
        self.first.response_head(head)
        self.second.response_head(head)

    def response_bytes(self, data: bytes) -> None:
        self.first.response_bytes(data)
        self.second.response_bytes(data)
