"""A connection to the bus that comes back: redials with jitter and fresh credentials, restores subscriptions, asks and answers in bytes.

`nats` (the Bus), `jetstream_api` and the store build on it. Nothing is buffered while disconnected: what could not be sent is an
error at once, so that no request is executed after its caller has given up.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from libs.common import errors
from libs.common.bus.client import NatsClient, RawMessage, Receive
from libs.common.bus.credentials import Credential, CredentialSource, read_creds
from libs.common.bus.failures import connection_lost, no_answer, nobody_serves, not_connected

STABLE_AFTER_S = 10.0
"""A connection that lived so long was a good one: the next dial does not wait."""
NO_RESPONDERS = "503"
EXCHANGE_S = 5.0
"""How long requests that were sent by an exchanged connection may still be answered by it."""


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """`credential` (asked before each dial) or `creds_file` (read before each dial); neither for a server without accounts."""

    servers: tuple[str, ...]
    name: str = "herdsman"
    creds_file: Path | None = None
    credential: CredentialSource | None = None
    inbox_prefix: str = "_INBOX"
    tls: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None
    """What is trusted; a function is asked before each dial."""
    connect_timeout_s: float = 5.0
    max_backoff_s: float = 5.0
    check_every_s: float = 5.0
    """How often the server is asked for a sign of life; also how long it may take to give one."""


class Subscription:
    """One interest, restored on every connection until it is ended."""

    def __init__(self, subject: str, queue: str, receive: Receive) -> None:
        self.subject = subject
        self.queue = queue
        self.receive = receive
        self._end: Callable[[], Awaitable[None]] | None = None

    async def begin(self, client: NatsClient) -> None:
        self._end = await client.subscribe(self.subject, self.queue, self.receive)

    async def end(self) -> None:
        if self._end is not None:
            await self._end()
            self._end = None


@dataclass(frozen=True, slots=True)
class _Question:
    """A request that waits for its answer, and the connection by which it was sent."""

    subject: str
    client: NatsClient
    answer: asyncio.Future[RawMessage]

    def fail(self, error: errors.HerdsmanError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Connection:
    """Owned by `nats.connect`. `epoch` counts connections: whoever holds server-side things compares it."""

    def __init__(self, options: NatsOptions) -> None:
        self.options = options
        self.epoch = 0
        self.up = asyncio.Event()
        self._client: NatsClient | None = None
        self._subscriptions: set[Subscription] = set()
        self._pending: dict[str, _Question] = {}
        self._inbox = f"{options.inbox_prefix}.{secrets.token_hex(8)}"
        self._requests = 0
        self._refresh = asyncio.Event()
        self._on_loss: set[Callable[[], None]] = set()
        self._replies = Subscription(f"{self._inbox}.*", "", self._on_reply)
        self._log = structlog.get_logger().bind(logger="bus")

    @property
    def connected(self) -> bool:
        return self._client is not None and not self._client.lost.is_set()

    def inbox(self) -> str:
        """A fresh subject that only this client may hear."""
        return f"{self.options.inbox_prefix}.{secrets.token_hex(12)}"

    def refresh(self) -> None:
        """Take up a renewed credential: a new connection is made before the old one is given up."""
        self._refresh.set()

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send one message. Raises Unavailable while disconnected, TooLarge."""
        await self._usable().publish(subject, data, reply, headers)

    async def request(
        self, subject: str, data: bytes, *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> RawMessage:
        """Ask and wait. Raises Unavailable (certainly not handled), Timeout (perhaps handled), Denied, TooLarge."""
        client = self._usable()
        self._requests += 1
        token = f"{self._requests:x}"
        answer: asyncio.Future[RawMessage] = asyncio.get_running_loop().create_future()
        self._pending[token] = _Question(subject, client, answer)
        try:
            await client.publish(subject, data, f"{self._inbox}.{token}", headers)
            async with asyncio.timeout(timeout_s):
                message = await answer
        except TimeoutError as exc:
            raise no_answer(subject, timeout_s) from exc
        finally:
            del self._pending[token]
        if not message.data and (message.headers or {}).get("Status") == NO_RESPONDERS:
            raise nobody_serves(subject)
        return message

    async def subscribe(self, subject: str, receive: Receive, *, queue: str = "") -> Subscription:
        """Hear `subject` on this and all later connections. When it returns, the server knows, if there is one.

        Raises Denied when the server does not allow it.
        """
        subscription = Subscription(subject, queue, receive)
        self._subscriptions.add(subscription)
        client = self._client
        if client is not None:
            try:
                await subscription.begin(client)
                await client.round_trip()
            except errors.Unavailable:
                self._log.debug("subscription_waits_for_connection", subject=subject)
            if subject.lower() in client.forbidden_subscriptions:
                await self.unsubscribe(subscription)
                raise errors.Denied(f'"{self.options.name}" may not hear "{subject}"')
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        await subscription.end()

    def on_loss(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` whenever the connection is lost or exchanged. Returns what ends it."""
        self._on_loss.add(callback)
        return lambda: self._on_loss.discard(callback)

    async def round_trip(self) -> None:
        """Wait until the server has processed all that was sent. Raises Unavailable."""
        await self._usable().round_trip()

    # ── keeping it up ──

    async def run(self) -> None:
        """Keep a connection, for ever. For a task with an owner; ends only by cancellation."""
        failures = 0
        try:
            while True:
                try:
                    client = await self._dial()
                except errors.HerdsmanError as exc:
                    failures += 1
                    if failures & (failures - 1) == 0:
                        self._log.warning("bus_not_reached", error=exc.message, attempts=failures)
                else:
                    began = asyncio.get_running_loop().time()
                    client = await self._keep(client)
                    self._let_go(client)
                    self._log.warning("bus_lost", reason=client.reason)
                    await client.close()
                    lived = asyncio.get_running_loop().time() - began
                    failures = 1 if lived > STABLE_AFTER_S else failures + 1
                # Full jitter: after a server's restart its clients come back spread over the whole interval.
                await asyncio.sleep(random.uniform(0, min(self.options.max_backoff_s, 0.1 * 2 ** min(failures, 10))))
        finally:
            client_left = self._client
            if client_left is not None:
                self._let_go(client_left)
                await client_left.close()

    async def _keep(self, client: NatsClient) -> NatsClient:
        """Use `client` until it is lost; exchange it when a refresh is asked for. Returns the one that was lost."""
        await self._take(client)
        while True:
            watch = asyncio.create_task(
                client.watch_over(self.options.check_every_s, self.options.check_every_s), name="nats watch"
            )
            refresh = asyncio.create_task(self._refresh.wait(), name="nats refresh")
            try:
                await asyncio.wait({watch, refresh}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                watch.cancel()
                refresh.cancel()
                await asyncio.wait({watch, refresh})
            if client.lost.is_set():
                return client
            self._refresh.clear()
            client = await self._exchange(client)

    async def _exchange(self, old: NatsClient) -> NatsClient:
        try:
            fresh = await self._dial()
        except errors.HerdsmanError as exc:
            self._log.warning("bus_not_refreshed", error=exc.message)
            asyncio.get_running_loop().call_later(30, self._refresh.set)
            return old
        for subscription in tuple(self._subscriptions):
            await subscription.end()
        await self._take(fresh)
        try:
            waiting = [q.answer for q in self._pending.values() if q.client is old]
            if waiting and not fresh.lost.is_set():
                await asyncio.wait(waiting, timeout=EXCHANGE_S)
        finally:
            self._let_go(old)
            await old.close()
        return fresh

    async def _dial(self) -> NatsClient:
        server = random.choice(self.options.servers)
        client = NatsClient(self._on_forbidden)
        websocket = None
        if server.startswith(("ws://", "wss://")):
            from libs.common.bus.websocket import open_transport

            websocket = open_transport(self.options.connect_timeout_s)
        await client.dial(
            server,
            self.options.name,
            await self._credential(),
            self.options.tls() if callable(self.options.tls) else self.options.tls,
            self.options.connect_timeout_s,
            websocket,
        )
        return client

    async def _credential(self) -> Credential | None:
        if self.options.credential is not None:
            return await self.options.credential()
        return read_creds(self.options.creds_file) if self.options.creds_file is not None else None

    async def _take(self, client: NatsClient) -> None:
        """Put `client` to use. A loss while doing so is noticed by whoever keeps it."""
        try:
            await self._replies.begin(client)
            for subscription in tuple(self._subscriptions):
                await subscription.begin(client)
            await client.round_trip()
        except errors.Unavailable:
            client.lost.set()
            return
        except BaseException:
            await client.close()
            raise
        self._client = client
        self.epoch += 1
        self.up.set()
        self._log.info("bus_connected", connection=self.epoch)

    def _let_go(self, client: NatsClient) -> None:
        if self._client is client:
            self._client = None
            self.up.clear()
        for callback in tuple(self._on_loss):
            callback()
        for question in self._pending.values():
            if question.client is client:
                question.fail(connection_lost(question.subject))

    def _usable(self) -> NatsClient:
        client = self._client
        if client is None or client.lost.is_set():
            raise not_connected()
        return client

    def _on_reply(self, message: RawMessage) -> None:
        question = self._pending.get(message.subject.rpartition(".")[2])
        if question is not None and not question.answer.done():
            question.answer.set_result(message)

    def _on_forbidden(self, subject: str) -> None:
        """The server refused to take a message: tell whoever waits for its answer, who would only see a timeout."""
        for question in self._pending.values():
            if question.subject.lower() == subject.lower():  # the library reports it in lower case
                question.fail(errors.Denied(f'"{self.options.name}" may not send on "{question.subject}"'))
