"""The bus over NATS: typed requests and messages on a connection that comes back.

`connect` is what processes call. Go on to `connection` for how it stays up, to `serving` for how requests are worked on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
from pydantic import BaseModel

from libs.common.bus import subject as subjects
from libs.common.bus.base import Handler, Listener, Message
from libs.common.bus.client import RawMessage
from libs.common.bus.connection import Connection, NatsOptions
from libs.common.bus.reply import message_headers, parse_deadline, parse_reply, request_headers
from libs.common.bus.serving import Hearer, Server
from libs.common.bus.wire import pack
from libs.common.cancellation import end

__all__ = ["NatsBus", "NatsOptions", "connect"]

M = TypeVar("M", bound=BaseModel)
FIRST_CONNECTION_S = 5.0


class NatsBus:
    """Implements `bus.base.Bus`. `connection` is for what needs bytes: JetStream and the store."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @property
    def connected(self) -> bool:
        return self.connection.connected

    def refresh(self) -> None:
        """Take up a renewed credential without a gap."""
        self.connection.refresh()

    async def request(self, subject: str, payload: BaseModel, reply: type[M], *, timeout_s: float = 5.0) -> M:
        answer = await self.connection.request(
            subject, pack(payload), timeout_s=timeout_s, headers=request_headers(timeout_s)
        )
        return parse_reply(reply, answer.data)

    async def publish(self, subject: str, payload: BaseModel) -> None:
        await self.connection.publish(subject, pack(payload), headers=message_headers() or None)

    @asynccontextmanager
    async def serve(
        self, subject: str, handler: Handler, *, queue: str, concurrency: int = 64
    ) -> AsyncGenerator[None, None]:
        server = Server(subject, handler, concurrency)

        def receive(raw: RawMessage) -> None:
            async def respond(answer: bytes) -> None:
                if raw.reply:
                    await self.connection.publish(raw.reply, answer)

            server.take(_message(subject, raw), respond)

        subscription = await self.connection.subscribe(subject, receive, queue=queue)
        try:
            yield
        finally:
            await self.connection.unsubscribe(subscription)
            await server.drain()

    @asynccontextmanager
    async def listen(self, subject: str, listener: Listener, *, queue: str = "") -> AsyncGenerator[None, None]:
        hearer = Hearer(subject, listener)

        def receive(raw: RawMessage) -> None:
            hearer.take(_message(subject, raw))

        task = asyncio.create_task(hearer.run(), name=f"listen {subject}")
        try:
            subscription = await self.connection.subscribe(subject, receive, queue=queue)
            try:
                yield
            finally:
                await self.connection.unsubscribe(subscription)
        finally:
            await end(task)


def _message(pattern: str, raw: RawMessage) -> Message:
    headers = raw.headers or {}
    tokens = subjects.match(pattern, raw.subject) or ()
    return Message(raw.subject, raw.data, headers, tokens, parse_deadline(headers))


@asynccontextmanager
async def connect(options: NatsOptions) -> AsyncGenerator[NatsBus, None]:
    """A bus that is kept connected while the context is open.

    Waits `FIRST_CONNECTION_S` for the first connection and then goes on without: whoever starts before the server is up sees
    Unavailable until it is.
    """
    connection = Connection(options)
    keeping = asyncio.create_task(connection.run(), name="nats connection")
    try:
        try:
            async with asyncio.timeout(FIRST_CONNECTION_S):
                await connection.up.wait()
        except TimeoutError:
            structlog.get_logger().warning("bus_not_reached_yet", servers=options.servers, logger="bus")
        yield NatsBus(connection)
    finally:
        await end(keeping)
