"""A durable consumer of a plain stream: each message is handled at least once, failures are retried, hopeless ones buried.

What becomes of a message is decided by the family of the error (`errors.RETRYABLE`): retryable ones come again after a growing
pause, up to `max_deliveries`; any other error of ours means that trying again cannot help. A bug is tried again like a passing fault.
A message that takes its process down counts, too: it is buried when it comes too often.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from libs.common import errors
from libs.common.bus.client import RawMessage
from libs.common.bus.dead_letters import DeadLetter, bury
from libs.common.bus.jetstream_api import SECOND_NS, Delivery, JetStreamApi
from libs.common.bus.pull import ConsumerLost, Pull

ACK_WAIT_S = 30.0
MAX_HISTORY = 20


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """One message of a stream; `sequence` names it for ever, so that handlers can be idempotent."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    sequence: int
    deliveries: int


StreamHandler = Callable[[StreamMessage], Awaitable[None]]


class DurableConsumer:
    """`run()` works the stream off, `concurrency` messages at a time; replicas share the work.

    Messages come in order, but one that failed comes again after later ones.
    """

    def __init__(
        self,
        api: JetStreamApi,
        stream: str,
        durable: str,
        handler: StreamHandler,
        *,
        subject: str = ">",
        concurrency: int = 1,
        max_deliveries: int = 8,
        backoff_s: float = 1.0,
    ) -> None:
        self.handled = 0
        self.buried = 0
        self._api = api
        self._stream = stream
        self._durable = durable
        self._handler = handler
        self._subject = subject
        self._concurrency = concurrency
        self._max_deliveries = max_deliveries
        self._backoff_s = backoff_s
        self._failures: dict[int, list[str]] = {}
        self._log = structlog.get_logger().bind(logger="durable", stream=stream, consumer=durable)

    async def run(self) -> None:
        """Work, for ever. For a TaskGroup; ends only by cancellation."""
        pause_s = 0.1
        while True:
            try:
                await self._api.connection.up.wait()
                await self._ensure_consumer()
                pause_s = 0.1
                await self._work()
            except (ConsumerLost, errors.Unavailable, errors.Timeout, errors.NotFound) as exc:
                self._log.info("consumer_interrupted", reason=str(exc))
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, 5.0)

    async def _ensure_consumer(self) -> None:
        """Make the durable consumer or bring it up to date. The server never gives up on a message: we count, and bury."""
        config = {
            "durable_name": self._durable,
            "name": self._durable,
            "filter_subject": self._subject,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(ACK_WAIT_S * SECOND_NS),
            "max_deliver": -1,
            "max_ack_pending": self._concurrency * 2,
        }
        await self._api.call(
            f"CONSUMER.CREATE.{self._stream}.{self._durable}.{self._subject}",
            {"stream_name": self._stream, "config": config},
        )

    async def _work(self) -> None:
        async with (
            Pull(self._api, self._stream, self._durable, batch=self._concurrency) as pull,
            asyncio.TaskGroup() as tasks,
        ):
            places = asyncio.Semaphore(self._concurrency)
            try:
                while True:
                    await places.acquire()
                    arrived = await pull.next()
                    while arrived is None:
                        arrived = await pull.next()
                    task = tasks.create_task(self._take(*arrived), name=f"{self._durable} message")
                    task.add_done_callback(lambda _task: places.release())
            except (ConsumerLost, errors.Unavailable) as exc:
                lost = exc
        raise lost

    async def _take(self, message: RawMessage, delivery: Delivery) -> None:
        taken = StreamMessage(
            message.subject, message.data, message.headers or {}, delivery.stream_sequence, delivery.deliveries
        )
        progress = asyncio.create_task(self._keep_alive(message.reply), name=f"{self._durable} progress")
        try:
            answer = await self._handle(taken)
            await self._api.connection.publish(message.reply, answer)
        except (errors.Unavailable, errors.Timeout) as exc:
            # Unanswered, it comes again: handlers are idempotent.
            self._log.info("message_comes_again", sequence=taken.sequence, reason=exc.message)
        finally:
            progress.cancel()
            await asyncio.wait({progress})

    async def _handle(self, message: StreamMessage) -> bytes:
        """What to tell the server about the message."""
        if message.deliveries > self._max_deliveries:
            return await self._bury(message, "it was delivered too often without an outcome")
        try:
            await self._handler(message)
        except errors.RETRYABLE as exc:
            failure = f"{type(exc).__name__}: {exc.message}"
        except errors.HerdsmanError as exc:
            return await self._bury(message, f"{type(exc).__name__}: {exc.message}")
        except Exception as exc:  # noqa: BLE001 - a bug in the handler: logged, and tried again like a passing fault
            self._log.exception("message_failed", sequence=message.sequence)
            failure = f"{type(exc).__name__}: {exc}"
        else:
            self.handled += 1
            self._failures.pop(message.sequence, None)
            return b"+ACK"
        if message.deliveries >= self._max_deliveries:
            return await self._bury(message, failure)
        self._note(message.sequence, failure)
        pause_s = min(self._backoff_s * 2 ** (message.deliveries - 1), 300.0) * random.uniform(0.5, 1.0)
        return b"-NAK " + json.dumps({"delay": int(pause_s * SECOND_NS)}).encode()

    async def _bury(self, message: StreamMessage, failure: str) -> bytes:
        self._note(message.sequence, failure)
        letter = DeadLetter(
            self._stream, self._durable, message.sequence, message.subject, message.data, message.headers,
            message.deliveries, tuple(self._failures[message.sequence]),
        )  # fmt: skip
        await bury(self._api, letter)
        del self._failures[message.sequence]
        self.buried += 1
        self._log.error(
            "message_buried", sequence=message.sequence, error=failure, advice="find the cause, then replay it"
        )
        return b"+TERM"

    def _note(self, sequence: int, failure: str) -> None:
        history = self._failures.setdefault(sequence, [])
        history.append(failure)
        del history[:-MAX_HISTORY]

    async def _keep_alive(self, reply: str) -> None:
        """Tell the server that somebody is still at it, so that nobody else gets the message."""
        while True:
            await asyncio.sleep(ACK_WAIT_S / 3)
            try:
                await self._api.connection.publish(reply, b"+WPI")
            except errors.Unavailable:
                self._log.debug("progress_not_told", reply=reply)
