"""One small question of our own to the server behind a source, on the same connections as relayed calls: request out, whole answer in.

`review` asks an API server so what a caller may do, and so does the front door. Nothing is known here of what is asked.
"""

from __future__ import annotations

import asyncio

from libs.common import errors
from libs.common.relay import framing, status
from libs.common.relay.decision import Source
from libs.common.relay.head import END, MAX_HEAD, ResponseHead, parse_response
from libs.common.relay.upstream import Upstream

MAX_BODY = 256 * 1024


class Question:
    """A `relay.upstream.Conversation`. `answer` is done with the head and the framed body, or with an error."""

    def __init__(self, upstream: Upstream) -> None:
        self.answer: asyncio.Future[tuple[ResponseHead, bytes]] = asyncio.get_running_loop().create_future()
        self._upstream: Upstream | None = upstream
        self._head: ResponseHead | None = None
        self._body: framing.Framing | None = None
        self._data = b""
        upstream.begin(self)

    def response_data(self, data: bytes) -> None:
        try:
            self._read(data)
        except errors.BadRequest as exc:
            self._fail(status.BadGateway(f"the answer to a question of the hub's own is broken: {exc.message}"))

    def upstream_ended(self, error: BaseException | None) -> None:
        self._upstream = None
        if not self.answer.done():
            self.answer.set_exception(_Lost("the connection was lost before an answer"))

    def start_over(self, _body: bytes) -> bool:
        """As `Exchange.start_over`: `ask` asks it again by another connection, whole."""
        self.upstream_ended(None)
        return True

    def upstream_writable(self, writable: bool) -> None:
        """A question is smaller than any buffer."""

    def give_up(self) -> None:
        """Nobody waits for the answer any more: the connection, on which it would still come, is of no use."""
        if not self.answer.done():
            self.answer.cancel()
        self._end(clean=False)

    def _read(self, data: bytes) -> None:
        self._data += data
        if self._head is None:
            end = self._data.find(END)
            if end < 0:
                if len(self._data) > MAX_HEAD:
                    raise errors.BadRequest("its head is larger than 64 KiB")
                return
            head = parse_response(self._data[: end + 4])
            data = self._data = self._data[end + 4 :]
            if head.status < 200:
                raise errors.BadRequest("it is no final answer")
            self._head, self._body = head, framing.of_response(b"POST", head)
        assert self._body is not None
        used = self._body.scan(data)
        if isinstance(self._body, framing.UntilClose):
            raise errors.BadRequest("it has no length")
        if len(self._data) > MAX_BODY:
            raise errors.BadRequest("it is too long")
        if self._body.done:
            clean = used == len(data) and not self._head.close
            if not self.answer.done():
                self.answer.set_result((self._head, self._data))
            self._end(clean=clean)

    def _fail(self, error: errors.HerdsmanError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
        self._end(clean=False)

    def _end(self, *, clean: bool) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.end(clean)


class _Lost(status.BadGateway):
    """The connection ended before a byte of the answer."""


async def ask(source: Source, request: bytes) -> tuple[int, bytes]:
    """(status, body) of the answer. For questions that change nothing: sent once more when a kept connection turns out dead.

    How long it may take is for the caller to say. Raises Unavailable or BadGateway.
    """
    upstream = source.acquire() or await source.open()
    try:
        head, body = await _ask_on(upstream, request)
    except _Lost:
        head, body = await _ask_on(await source.open(), request)
    return head.status, _join(body) if head.chunked else body


async def _ask_on(upstream: Upstream, request: bytes) -> tuple[ResponseHead, bytes]:
    if upstream.closed:
        raise _Lost("the connection was lost before it was used")
    question = Question(upstream)
    try:
        upstream.write(request)
        return await question.answer
    finally:
        question.give_up()


def _join(chunked: bytes) -> bytes:
    """The body in a chunked one that `framing` has found to be whole."""
    parts: list[bytes] = []
    while True:
        line, _, chunked = chunked.partition(b"\r\n")
        size = int(line.partition(b";")[0].strip(b" \t"), 16)
        if not size:
            return b"".join(parts)
        parts.append(chunked[:size])
        chunked = chunked[size + 2 :]
