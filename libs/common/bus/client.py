"""One connection of the client library, from dial to loss. The only module that imports the library.

`connection` keeps one of these alive and replaces it when it is lost. The library's own reconnect is switched off: it gives up
for good when authentication expires, waits without jitter, and does not notice some losses.
"""

from __future__ import annotations

import asyncio
import base64
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import nats.errors
import structlog
from nats.aio.client import Client

from libs.common import errors
from libs.common.bus.credentials import Credential
from libs.common.bus.failures import not_connected
from libs.common.cancellation import heeding

LOOK_EVERY_S = 0.5
WRITE_BUFFER_BYTES = 8 * 1024 * 1024
_FORBIDDEN_PUBLISH = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)
_FORBIDDEN_SUBSCRIBE = re.compile(r'permissions violation for subscription to "([^"]+)"', re.IGNORECASE)
_DIAL_FAILURES = (OSError, nats.errors.Error, TimeoutError, errors.HerdsmanError)


class RawMessage(Protocol):
    """A message as the library delivers it."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str] | None


Receive = Callable[[RawMessage], None]


class NatsClient:
    """One connection. `lost` is set when it is of no more use, `reason` says why."""

    def __init__(self, forbidden: Callable[[str], None]) -> None:
        self.lost = asyncio.Event()
        self.reason = ""
        self.forbidden_subscriptions: set[str] = set()
        """In lower case, as the library reports them."""
        self._forbidden = forbidden
        self._client = Client()
        self._websocket: Any = None
        self._round_trips: set[asyncio.Task[bool]] = set()
        self._log = structlog.get_logger().bind(logger="bus")

    async def dial(
        self, server: str, name: str, credential: Credential | None, tls: Any, timeout_s: float, websocket: Any
    ) -> None:
        """Connect and authenticate. Raises Unavailable with the reason; nothing stays open then."""
        options: dict[str, Any] = {}
        if credential is not None:
            options["user_jwt_cb"] = lambda: credential.jwt.encode("ascii")
            options["signature_cb"] = lambda nonce: _sign(credential.seed, nonce)
        if websocket is not None:
            self._websocket = self._client._transport = websocket
        try:
            async with asyncio.timeout(timeout_s):
                await heeding(self._client.connect(
                    [server], name=name, tls=tls, allow_reconnect=False, max_reconnect_attempts=1,
                    reconnect_time_wait=0, connect_timeout=math.ceil(timeout_s), ping_interval=15, max_outstanding_pings=2,
                    pending_size=WRITE_BUFFER_BYTES, flush_timeout=timeout_s, error_cb=self._on_error,
                    disconnected_cb=self._on_lost, closed_cb=self._on_lost, skip_subject_validation=True, **options,
                ))  # fmt: skip
        except _DIAL_FAILURES as exc:
            await self._abandon()
            detail = self.reason or str(exc) or type(exc).__name__
            raise errors.Unavailable(f"cannot connect to the message bus at {server}: {detail}") from exc
        except BaseException:
            await self._abandon()
            raise
        self.reason = ""

    async def watch_over(self, every_s: float, patience_s: float) -> None:
        """Return when the connection is lost: when the library says so, has stopped reading, or the server is silent."""
        loop = asyncio.get_running_loop()
        check_at = loop.time() + every_s
        while not await _is_set_within(self.lost, LOOK_EVERY_S):
            reading = getattr(self._client, "_reading_task", None)
            if self._client.is_closed or not self._client.is_connected or reading is None or reading.done():
                self._note_loss("the connection was closed")
            elif loop.time() >= check_at:
                try:
                    async with asyncio.timeout(patience_s):
                        await self.round_trip()
                except (TimeoutError, errors.HerdsmanError):
                    self._note_loss(f"the server did not answer for {patience_s:g} s")
                check_at = loop.time() + every_s

    async def round_trip(self) -> None:
        """Wait until the server has processed all that was sent so far. Raises Unavailable when the connection is lost.

        It runs in a task of its own: the library's reader dies of an answer to a ping whose waiter was cancelled.
        """
        task = asyncio.get_running_loop().create_task(self._ping(), name="nats ping")
        self._round_trips.add(task)
        task.add_done_callback(self._round_trips.discard)
        lost = asyncio.get_running_loop().create_task(self.lost.wait(), name="nats lost")
        try:
            await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
        if not task.done() or not task.result():
            raise not_connected()

    async def publish(self, subject: str, data: bytes, reply: str, headers: dict[str, str] | None) -> None:
        """Hand one message to the socket. Raises Unavailable, TooLarge."""
        try:
            # The library swallows a cancellation while its buffer is full.
            await heeding(self._client.publish(subject, data, reply=reply, headers=headers))
        except nats.errors.MaxPayloadError as exc:
            limit = self._client.max_payload
            raise errors.TooLarge(f"{len(data)} bytes are more than the {limit} that one message may have") from exc
        except (OSError, nats.errors.Error) as exc:
            raise not_connected() from exc

    async def subscribe(self, subject: str, queue: str, receive: Receive) -> Callable[[], Awaitable[None]]:
        """Get messages in `receive`, which must not wait. Returns what ends it. Raises Unavailable."""

        async def deliver(message: Any) -> None:
            receive(message)

        try:
            subscription = await heeding(self._client.subscribe(subject, queue=queue, cb=deliver))
        except (OSError, nats.errors.Error) as exc:
            raise not_connected() from exc

        async def unsubscribe() -> None:
            try:
                await subscription.unsubscribe()
            except (OSError, nats.errors.Error):
                self._log.debug("unsubscribed_after_loss", subject=subject)

        return unsubscribe

    async def close(self) -> None:
        """Send what is left and close; never raises for a connection that is already gone."""
        self._note_loss("closed by this process")
        await self._abandon()
        for task in tuple(self._round_trips):
            task.cancel()

    # ── inside ──

    async def _ping(self) -> bool:
        try:
            await self._client.flush(timeout=60)
        except (OSError, nats.errors.Error, TimeoutError):
            return False
        return True

    async def _abandon(self) -> None:
        try:
            async with asyncio.timeout(2):
                await self._client.close()
        except (OSError, nats.errors.Error, TimeoutError, AssertionError) as exc:
            self._log.debug("close_failed", error=str(exc))
        if self._websocket is not None:
            await self._websocket.release()

    def _note_loss(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.lost.set()

    async def _on_lost(self) -> None:
        error = self._client.last_error
        self._note_loss(str(error) if error else "the connection was closed")

    async def _on_error(self, error: Exception) -> None:
        forbidden = _FORBIDDEN_PUBLISH.search(str(error))
        if forbidden is not None:
            self._log.error("publish_forbidden", subject=forbidden[1])
            self._forbidden(forbidden[1])
        elif isinstance(error, nats.errors.SlowConsumerError):
            self._log.error("messages_lost", subject=error.subject, advice="this process is too slow for what it hears")
        elif (refused := _FORBIDDEN_SUBSCRIBE.search(str(error))) is not None:
            self._log.error("subscribe_forbidden", subject=refused[1])
            self.forbidden_subscriptions.add(refused[1].lower())
        else:
            self.reason = self.reason or str(error)
            self._log.debug("bus_error", error=str(error))


def _sign(seed: str, nonce: str) -> bytes:
    import nkeys

    pair = nkeys.from_seed(bytearray(seed.encode("ascii")))
    signature: bytes = base64.b64encode(pair.sign(nonce.encode("ascii")))
    pair.wipe()
    return signature


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
