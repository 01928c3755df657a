"""How requests and messages are worked on, whatever bus they came by: bounded, in tasks with an owner, finished on exit.

`memory` and `nats` hand every request to a `Server` and every message to a `Hearer`. One that is too many is answered or
dropped at once: a caller that gives up and asks again must not find a longer queue than before.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from libs.common import errors
from libs.common.bus.base import Handler, Listener, Message
from libs.common.bus.reply import pack_error, pack_reply

Respond = Callable[[bytes], Awaitable[None]]

HANDLER_LIMIT_S = 55.0
"""No answer takes longer: a handler that hangs would hold its place for ever, and the right to answer ends at 60 s."""
DRAIN_S = 10.0
LISTEN_BACKLOG = 1024


class Server:
    """Runs the handler of one subject. At most `concurrency` at once, as many again wait, the rest is told to come back."""

    def __init__(self, subject: str, handler: Handler, concurrency: int) -> None:
        self.subject = subject
        self.refused = 0
        self.too_late = 0
        self._handler = handler
        self._limit = 2 * concurrency
        self._places = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger().bind(logger="bus", subject=subject)

    def take(self, message: Message, respond: Respond) -> None:
        """Begin to answer; never waits."""
        work = self._answer(message, respond) if len(self._tasks) < self._limit else self._refuse(respond)
        task = asyncio.get_running_loop().create_task(work, name=f"serve {self.subject}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Let running handlers finish, `DRAIN_S` at most, then end them."""
        if self._tasks:
            _done, left = await asyncio.wait(self._tasks, timeout=DRAIN_S)
            for task in left:
                task.cancel()
            if left:
                self._log.error("handlers_cut_off", count=len(left))
                await asyncio.wait(left)

    async def _answer(self, message: Message, respond: Respond) -> None:
        arrived = time.monotonic()
        async with self._places:
            if message.deadline_s is not None and time.monotonic() - arrived > message.deadline_s:
                self.too_late += 1
                return
            await self._respond(respond, await self._handle(message))

    async def _handle(self, message: Message) -> bytes:
        try:
            async with asyncio.timeout(HANDLER_LIMIT_S):
                return pack_reply(await self._handler(message))
        except errors.HerdsmanError as exc:
            return pack_error(exc)
        except TimeoutError:
            self._log.exception("handler_timed_out")
            return pack_error(errors.Timeout("the request took too long to answer"))
        except Exception:  # noqa: BLE001 - a bug in one handler must not stop the others; it is logged with its trace
            self._log.exception("handler_failed")
            return pack_error(errors.Internal("the request failed; the service's log says why"))

    async def _refuse(self, respond: Respond) -> None:
        self.refused += 1
        await self._respond(respond, pack_error(errors.Unavailable("too many requests wait already", retry_after_s=1)))

    async def _respond(self, respond: Respond, answer: bytes) -> None:
        try:
            await respond(answer)
        except errors.HerdsmanError as exc:
            self._log.warning("answer_not_sent", error=exc.message)


class Hearer:
    """Runs the listener of one subject, one message at a time in order; a full queue drops the oldest."""

    def __init__(self, subject: str, listener: Listener) -> None:
        self.subject = subject
        self.dropped = 0
        self._listener = listener
        self._backlog: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._log = structlog.get_logger().bind(logger="bus", subject=subject)

    def take(self, message: Message) -> None:
        """Queue the message; never waits."""
        if len(self._backlog) >= LISTEN_BACKLOG:
            self._backlog.popleft()
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:  # at 1, 2, 4, 8, …: a flood must not become a flood of lines
                self._log.warning("messages_dropped", dropped=self.dropped)
        self._backlog.append(message)
        self._wake.set()

    async def run(self) -> None:
        """Work off the queue, for ever."""
        while True:
            while self._backlog:
                await self._hear(self._backlog.popleft())
            self._wake.clear()
            await self._wake.wait()

    async def _hear(self, message: Message) -> None:
        try:
            await self._listener(message)
        except errors.HerdsmanError as exc:
            self._log.warning("message_refused", reason=exc.reason, error=exc.message)
        except Exception:  # noqa: BLE001 - a bug in one handler must not stop the others; it is logged with its trace
            self._log.exception("message_failed")
