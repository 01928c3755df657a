"""Durable consumers on a real server: at least once, retries, dead letters and their return."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from integration.harness.nats import NatsServer
from libs.common import errors
from libs.common.bus.dead_letters import DEAD_LETTERS, read_dead_letter, replay_dead_letter
from libs.common.bus.durable import DurableConsumer, StreamMessage
from libs.common.bus.jetstream_api import JetStreamApi, Refused
from libs.common.bus.nats import NatsBus, connect
from libs.common.bus.streams import StreamSpec, append, ensure_stream
from tests.store.watching import eventually


@pytest.fixture
async def api(admin: NatsBus) -> JetStreamApi:
    return JetStreamApi(admin.connection)


@pytest.fixture
async def stream(api: JetStreamApi) -> AsyncGenerator[str, None]:
    name = f"T{secrets.token_hex(4)}"
    await ensure_stream(api, DEAD_LETTERS)
    await ensure_stream(api, StreamSpec(name, (f"{name}.>",), max_bytes=1 << 20, max_age_s=3600))
    yield name
    await api.call(f"STREAM.DELETE.{name}")


@asynccontextmanager
async def consuming(
    api: JetStreamApi, stream: str, handler: Callable[[StreamMessage], Awaitable[None]], **options: object
) -> AsyncGenerator[DurableConsumer, None]:
    consumer = DurableConsumer(api, stream, "worker", handler, subject=f"{stream}.>", backoff_s=0.05, **options)
    task = asyncio.create_task(consumer.run(), name="consumer")
    try:
        yield consumer
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_messages_are_handled_once_and_in_order(api: JetStreamApi, stream: str) -> None:
    seen: list[bytes] = []

    async def note(message: StreamMessage) -> None:
        seen.append(message.data)

    for number in range(50):
        await append(api, f"{stream}.a", str(number).encode(), message_id=f"m{number}")
        await append(api, f"{stream}.a", b"again", message_id=f"m{number}")
    async with consuming(api, stream, note):
        await eventually(lambda: len(seen) >= 50)
        await asyncio.sleep(0.1)
    assert seen == [str(n).encode() for n in range(50)]


async def test_a_restarted_consumer_goes_on_where_it_was(api: JetStreamApi, stream: str) -> None:
    seen: list[int] = []

    async def note(message: StreamMessage) -> None:
        seen.append(message.sequence)

    for number in range(20):
        await append(api, f"{stream}.a", b"x", message_id=f"m{number}")
    async with consuming(api, stream, note):
        await eventually(lambda: len(seen) == 20)
        await asyncio.sleep(0.1)
    await append(api, f"{stream}.a", b"x", message_id="later")
    async with consuming(api, stream, note):
        await eventually(lambda: len(seen) == 21)
    assert seen == list(range(1, 22))


async def test_a_passing_fault_is_tried_again(api: JetStreamApi, stream: str) -> None:
    tries: list[int] = []

    async def falter(message: StreamMessage) -> None:
        tries.append(message.deliveries)
        if message.deliveries == 1:
            raise errors.Unavailable("not now")
        if message.deliveries == 2:
            raise RuntimeError("a bug")

    await append(api, f"{stream}.a", b"x", message_id="m")
    async with consuming(api, stream, falter) as consumer:
        await eventually(lambda: consumer.handled == 1)
    assert tries == [1, 2, 3]


@pytest.mark.parametrize(
    ("error", "attempts"), [(errors.Invalid("wrong"), 1), (errors.Unavailable("away"), 3), (RuntimeError("a bug"), 3)]
)
async def test_a_hopeless_message_is_buried_with_its_history_and_can_be_replayed(
    api: JetStreamApi, stream: str, error: Exception, attempts: int
) -> None:
    hopeless = True
    handled: list[bytes] = []

    async def work(message: StreamMessage) -> None:
        if message.data == b"bad" and hopeless:
            raise error
        handled.append(message.data)

    await append(api, f"{stream}.a", b"bad", message_id="bad")
    await append(api, f"{stream}.a", b"good", message_id="good")
    async with consuming(api, stream, work, max_deliveries=3) as consumer:
        await eventually(lambda: consumer.buried == 1 and handled == [b"good"])
        last = (await api.call(f"STREAM.INFO.{DEAD_LETTERS.name}"))["state"]["last_seq"]
        letter = await read_dead_letter(api, last)
        assert (letter.stream, letter.consumer, letter.data) == (stream, "worker", b"bad")
        assert len(letter.failures) == letter.deliveries == attempts
        assert letter.failures[-1] == f"{type(error).__name__}: {error}"
        hopeless = False
        await replay_dead_letter(api, last)
        await eventually(lambda: handled == [b"good", b"bad"])
        with pytest.raises(errors.NotFound):
            await replay_dead_letter(api, last)


async def test_a_message_that_takes_its_process_down_is_buried_in_the_end(api: JetStreamApi, stream: str) -> None:
    began = asyncio.Event()

    async def hang(_message: StreamMessage) -> None:
        began.set()
        await asyncio.Event().wait()

    await append(api, f"{stream}.a", b"poison", message_id="m")
    for _ in range(3):
        began.clear()
        async with consuming(api, stream, hang, max_deliveries=3):
            await asyncio.wait_for(began.wait(), 10)
        # A process that dies leaves the message to the server's ack_wait; the test says so at once.
        await _redeliver(api, stream)
    async with consuming(api, stream, hang, max_deliveries=3) as consumer:
        await eventually(lambda: consumer.buried == 1)


async def _redeliver(api: JetStreamApi, stream: str) -> None:
    info = await api.call(f"CONSUMER.INFO.{stream}.worker")
    delivered, sequence = info["delivered"]["consumer_seq"], info["delivered"]["stream_seq"]
    await api.connection.publish(f"$JS.ACK.{stream}.worker.1.{sequence}.{delivered}.0.0", b"-NAK")
    await api.connection.round_trip()


async def test_concurrent_handlers_work_side_by_side(api: JetStreamApi, stream: str) -> None:
    running = most = done = 0

    async def work(_message: StreamMessage) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        done += 1

    for number in range(40):
        await append(api, f"{stream}.a", b"x", message_id=f"m{number}")
    async with consuming(api, stream, work, concurrency=4):
        await eventually(lambda: done == 40)
    assert most == 4


async def test_work_goes_on_after_a_killed_servers_restart_and_nothing_is_lost(own_server: NatsServer) -> None:
    seen: set[bytes] = set()

    async def note(message: StreamMessage) -> None:
        seen.add(message.data)

    async with connect(own_server.connect_as("administration")) as bus:
        api = JetStreamApi(bus.connection)
        await ensure_stream(api, DEAD_LETTERS)
        await ensure_stream(api, StreamSpec("JOBS", ("JOBS.>",), max_bytes=1 << 20, max_age_s=3600))
        async with consuming(api, "JOBS", note):
            for number in range(30):
                await append(api, "JOBS.a", f"before {number}".encode(), message_id=f"b{number}")
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(own_server.start)
            await eventually(lambda: bus.connected)
            for number in range(30):
                await append(api, "JOBS.a", f"after {number}".encode(), message_id=f"a{number}")
            await eventually(lambda: len(seen) == 60)


async def test_a_stream_cannot_be_emptied_by_a_header_nor_outgrow_its_room(api: JetStreamApi) -> None:
    name = f"T{secrets.token_hex(4)}"
    spec = StreamSpec(name, (f"{name}.>",), max_bytes=100_000, max_age_s=3600, when_full="refuse", append_only=True)
    await ensure_stream(api, spec)
    await ensure_stream(api, spec)
    await append(api, f"{name}.a", b"x" * 30_000, message_id="a")
    for headers in ({"Nats-Rollup": "all"}, {"Nats-TTL": "1s"}):
        with pytest.raises(Refused):
            await api.publish(f"{name}.a", b"x", headers)
    for operation, request in (("STREAM.PURGE", {}), ("STREAM.MSG.DELETE", {"seq": 1})):
        with pytest.raises(Refused):
            await api.call(f"{operation}.{name}", request)
    await append(api, f"{name}.a", b"x" * 30_000, message_id="b")
    await append(api, f"{name}.a", b"x" * 30_000, message_id="c")
    with pytest.raises(errors.Unavailable, match="no room"):
        await append(api, f"{name}.a", b"x" * 30_000, message_id="d")
    await api.call(f"STREAM.DELETE.{name}")
