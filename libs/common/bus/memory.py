"""The bus's double: services in one process, for hermetic tests. Payloads are packed and read as on the wire.

It keeps the same promises (`tests/bus/conformance.py` runs on it). What it does not imitate: permissions, payload limits,
slow networks, and messages that are lost on the way. `disconnect` and `reconnect` do what a lost server does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from libs.common.bus import subject as subjects
from libs.common.bus.base import Handler, Listener, Message
from libs.common.bus.failures import no_answer, nobody_serves, not_connected
from libs.common.bus.reply import message_headers, parse_deadline, parse_reply, request_headers
from libs.common.bus.serving import Hearer, Respond, Server
from libs.common.bus.wire import pack
from libs.common.cancellation import end

M = TypeVar("M", bound=BaseModel)


@dataclass(eq=False)
class _Interest:
    pattern: str
    queue: str
    worker: Server | Hearer


class MemoryBus:
    """Implements `bus.base.Bus`."""

    def __init__(self) -> None:
        self._interests: list[_Interest] = []
        self._connected = True
        self.journals: dict[str, Any] = {}
        """By the stream's name: what `journal.open_journal` keeps for this bus."""

    @property
    def connected(self) -> bool:
        return self._connected

    def disconnect(self) -> None:
        """From now on nothing passes."""
        self._connected = False

    def reconnect(self) -> None:
        self._connected = True

    async def request(self, subject: str, payload: BaseModel, reply: type[M], *, timeout_s: float = 5.0) -> M:
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def respond(data: bytes) -> None:
            if not answered.done():
                answered.set_result(data)

        taken = self._deliver(subject, pack(payload), request_headers(timeout_s), respond)
        if not taken:
            raise nobody_serves(subject)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await answered
        except TimeoutError as exc:
            raise no_answer(subject, timeout_s) from exc
        return parse_reply(reply, answer)

    async def publish(self, subject: str, payload: BaseModel) -> None:
        self._deliver(subject, pack(payload), message_headers(), _into_the_void)

    @asynccontextmanager
    async def serve(
        self, subject: str, handler: Handler, *, queue: str, concurrency: int = 64
    ) -> AsyncGenerator[None, None]:
        server = Server(subject, handler, concurrency)
        interest = _Interest(subject, queue, server)
        self._interests.append(interest)
        try:
            yield
        finally:
            self._interests.remove(interest)
            await server.drain()

    @asynccontextmanager
    async def listen(self, subject: str, listener: Listener, *, queue: str = "") -> AsyncGenerator[None, None]:
        hearer = Hearer(subject, listener)
        interest = _Interest(subject, queue, hearer)
        task = asyncio.create_task(hearer.run(), name=f"listen {subject}")
        self._interests.append(interest)
        try:
            yield
        finally:
            self._interests.remove(interest)
            await end(task)

    def _deliver(self, subject: str, data: bytes, headers: dict[str, str], respond: Respond) -> bool:
        """Hand the message to one member of each queue group and to all without a queue. Returns whether anybody took it."""
        if not self._connected:
            raise not_connected()
        chosen: dict[str | int, list[_Interest]] = {}
        for index, interest in enumerate(self._interests):
            if subjects.match(interest.pattern, subject) is not None:
                chosen.setdefault(interest.queue or index, []).append(interest)
        for members in chosen.values():
            interest = random.choice(members)
            tokens = subjects.match(interest.pattern, subject) or ()
            message = Message(subject, data, headers, tokens, parse_deadline(headers))
            if isinstance(interest.worker, Hearer):
                interest.worker.take(message)
            else:
                interest.worker.take(message, respond)
        return bool(chosen)


async def _into_the_void(_data: bytes) -> None:
    """The answer to a message that nobody asked a question with."""
