"""Pulling from a JetStream consumer: messages in order of arrival, signs of life, and a clear end as soon as it is in doubt.

Used by the store's watch and by durable consumers (`streams`). It asks for more only when what it got was taken, so that a slow
reader holds the server back and the client library never drops anything.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from types import TracebackType

from libs.common.bus.client import RawMessage
from libs.common.bus.connection import Subscription
from libs.common.bus.jetstream_api import SECOND_NS, Delivery, JetStreamApi, parse_delivery

HEARTBEAT_S = 2.0
EXPIRES_S = 25.0
_PULL_AGAIN = ("404", "408")
_LETHAL = ("deleted", "shutdown", "leadership")


class ConsumerLost(Exception):
    """The consumer is gone, the connection is, or the server is silent: begin again with another."""


class Pull:
    """One reading of one consumer, as an async context. `batch` messages or `max_bytes` at most are under way."""

    def __init__(self, api: JetStreamApi, stream: str, consumer: str, *, batch: int, max_bytes: int = 0) -> None:
        self._api = api
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._batch = batch
        self._max_bytes = max_bytes
        self._inbox = api.connection.inbox()
        self._arrived: deque[RawMessage] = deque()
        self._wake = asyncio.Event()
        self._lost = False
        self._credit = 0
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Pull:
        self._forget = self._api.connection.on_loss(self._lose)
        self._subscription = await self._api.connection.subscribe(self._inbox, self._put)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._forget()
        if self._subscription is not None:
            await self._api.connection.unsubscribe(self._subscription)

    async def next(self) -> tuple[RawMessage, Delivery] | None:
        """The next message; None for a sign of life without one. Raises ConsumerLost; Unavailable when disconnected."""
        while True:
            if self._credit <= 0:
                await self._ask()
            message = await self._take()
            delivery = parse_delivery(message)
            if delivery is not None:
                self._credit -= 1
                return message, delivery
            if _is_heartbeat(message):
                return None
            self._credit = 0

    async def _ask(self) -> None:
        request: dict[str, int] = {
            "batch": self._batch,
            "expires": int(EXPIRES_S * SECOND_NS),
            "idle_heartbeat": int(HEARTBEAT_S * SECOND_NS),
        }
        if self._max_bytes:
            request["max_bytes"] = self._max_bytes
        await self._api.connection.publish(self._subject, json.dumps(request).encode(), reply=self._inbox)
        self._credit = self._batch

    async def _take(self) -> RawMessage:
        while not self._arrived:
            if self._lost:
                raise ConsumerLost("the connection was lost")
            self._wake.clear()
            try:
                async with asyncio.timeout(2 * HEARTBEAT_S + 0.5):
                    await self._wake.wait()
            except TimeoutError as exc:
                raise ConsumerLost("heartbeats were missed") from exc
        return self._arrived.popleft()

    def _put(self, message: RawMessage) -> None:
        self._arrived.append(message)
        self._wake.set()

    def _lose(self) -> None:
        self._lost = True
        self._wake.set()


def _is_heartbeat(message: RawMessage) -> bool:
    """False for the end of a pull, after which one pulls again. Raises ConsumerLost for the end of the consumer."""
    headers = message.headers or {}
    status, description = headers.get("Status", ""), headers.get("Description", "")
    if status == "100":
        return True
    if status in _PULL_AGAIN or (status == "409" and not any(word in description.lower() for word in _LETHAL)):
        return False
    raise ConsumerLost(f"the consumer ended: {status} {description}".rstrip())
