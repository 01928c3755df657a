"""Copying a whole stream out of JetStream and back in, as the server's own snapshot format. Used by `store.backup`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from libs.common import errors
from libs.common.bus.client import RawMessage
from libs.common.bus.jetstream_api import JetStreamApi, checked

CHUNK_BYTES = 128 * 1024
SILENCE_S = 30.0


@asynccontextmanager
async def take_snapshot(
    api: JetStreamApi, stream: str
) -> AsyncGenerator[tuple[Mapping[str, Any], AsyncIterator[bytes]], None]:
    """`{"config": …, "state": …}` of a stream, and its content in chunks. The stream serves reads and writes meanwhile.

    Raises Refused when there is no such stream; Timeout, Unavailable when the server stops sending.
    """
    connection = api.connection
    inbox = connection.inbox()
    arrived: deque[RawMessage] = deque()
    wake = asyncio.Event()

    def receive(message: RawMessage) -> None:
        arrived.append(message)
        wake.set()

    subscription = await connection.subscribe(inbox, receive)
    try:
        head = await api.call(
            f"STREAM.SNAPSHOT.{stream}",
            {"deliver_subject": inbox, "no_consumers": True, "chunk_size": CHUNK_BYTES, "jsck": True},
            SILENCE_S,
        )

        async def chunks() -> AsyncIterator[bytes]:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    while not arrived:
                        wake.clear()
                        await wake.wait()
                message = arrived.popleft()
                if not message.data:
                    _check_end(message, stream)
                    return
                yield message.data
                if message.reply:  # the server sends only so much before it hears that this arrived
                    await connection.publish(message.reply, b"")

        yield head, chunks()
    finally:
        await connection.unsubscribe(subscription)


def _check_end(message: RawMessage, stream: str) -> None:
    headers = message.headers or {}
    if headers.get("Status", "204") != "204":
        raise errors.Unavailable(f'the snapshot of "{stream}" ended early: {headers.get("Description", "")}')


async def put_back(api: JetStreamApi, stream: str, head: Mapping[str, Any], chunks: AsyncIterator[bytes]) -> int:
    """Make the stream from a snapshot; there must be none of its name. Returns how many messages it has.

    Revisions stay as they were; the stream's time of creation changes, so that every watch lists anew.
    """
    begun = await api.call(f"STREAM.RESTORE.{stream}", {"config": head["config"], "state": head["state"]}, SILENCE_S)
    subject = str(begun["deliver_subject"])
    async for chunk in chunks:
        await api.connection.request(subject, chunk, timeout_s=SILENCE_S)
    answer = await api.connection.request(subject, b"", timeout_s=SILENCE_S)
    return int(checked(answer.data, f"STREAM.RESTORE.{stream}")["state"]["messages"])
