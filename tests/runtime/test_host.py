"""A service process on the in-memory bus and store: what `build()` may ask of its host, and how it ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from pydantic import BaseModel

from libs.common import errors
from libs.common.bus.memory import MemoryBus
from libs.common.contracts.messages import Empty, Health
from libs.common.contracts.methods import PING, Method
from libs.common.crypto.envelope import Verifier, generate_key_pair
from libs.common.runtime.config import ServiceConfig
from libs.common.runtime.host import Host, TaskEndedError
from libs.common.store.memory import MemoryStore
from libs.common.version import VERSION

SERVICE = "authz"


class Question(BaseModel):
    text: str


class Reply(BaseModel):
    text: str


ASK = Method("authz", "ask", Question, Reply)


@pytest.fixture
def bus():
    return MemoryBus()


@pytest.fixture
def start(bus, clock, tmp_path):
    """`async with start() as host`: between the bus and `begin_stop`, as `run` does it."""
    file = tmp_path / "identity.pub"
    file.write_bytes(generate_key_pair()[1])
    config = ServiceConfig(nats_url=["nats://127.0.0.1:4222"], identity_public_key=file)
    stores: dict[str, MemoryStore] = {}

    def open_store(bucket: str) -> MemoryStore:
        return stores.setdefault(bucket, MemoryStore(bucket))

    @asynccontextmanager
    async def run():
        async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
            host = Host(SERVICE, config, bus, open_store, Verifier.load(file, clock), tasks, stack)
            try:
                yield host
            finally:
                host.begin_stop()

    return run


def ask(bus, text="hello"):
    return bus.request(ASK.subject, Question(text=text), Reply, timeout_s=1)


async def test_a_served_method_answers(start, bus):
    async def handle(question, _message):
        return Reply(text=question.text.upper())

    async with start() as host:
        await host.serve(ASK, handle)
        assert (await ask(bus)).text == "HELLO"


@pytest.mark.parametrize(
    "error", [errors.NotFound('no role "x"'), errors.Denied("not yours"), errors.Conflict("again")]
)
async def test_an_error_of_ours_reaches_the_caller_as_it_is(start, bus, error):
    async def handle(_question, _message):
        raise error

    async with start() as host:
        await host.serve(ASK, handle)
        with pytest.raises(type(error)) as caught:
            await ask(bus)
        assert caught.value.message == error.message


async def test_a_bug_reaches_the_caller_as_internal_without_its_text(start, bus):
    async def handle(_question, _message):
        raise KeyError("the password is swordfish")

    async with start() as host:
        await host.serve(ASK, handle)
        with pytest.raises(errors.Internal) as caught:
            await ask(bus)
        assert "swordfish" not in caught.value.message
        assert SERVICE in caught.value.message


async def test_a_message_that_cannot_be_handled_does_not_end_the_listening(start, bus, eventually):
    heard = []

    async def hear(question, _message):
        if question.text == "bad":
            raise ValueError("a bug")
        heard.append(question.text)

    async with start() as host:
        await host.listen("facts.x", Question, hear)
        await bus.publish("facts.x", Question(text="bad"))
        await bus.publish("facts.x", Question(text="good"))
        await eventually(lambda: heard == ["good"])


async def test_readiness_names_what_is_missing(start, bus):
    caught_up = False
    async with start() as host:
        host.ready_when("the world", lambda: caught_up)
        assert host.waiting_for() == ["start", "the world"]
        await host.finish_build()
        assert host.waiting_for() == ["the world"]
        caught_up = True
        assert host.waiting_for() == []
        bus.disconnect()
        assert host.waiting_for() == ["bus"]
        bus.reconnect()
        host.begin_stop()
        assert host.waiting_for() == ["stopping"]


async def test_an_informer_is_shared_and_part_of_readiness(start):
    async with start() as host:
        first = await host.informer("authz", "roles")
        assert await host.informer("authz", "roles") is first
        assert await host.informer("authz") is not first
        assert "informer authz/roles" in host.waiting_for()
        await host.synced()
        await host.finish_build()
        assert host.waiting_for() == []


async def test_ping_says_who_is_there_and_what_is_missing(start, bus):
    async with start() as host:
        host.ready_when("the world", lambda: False)
        await host.finish_build()
        answer = await bus.request(PING[SERVICE].subject, Empty(), Health, timeout_s=1)
    assert answer == Health(service=SERVICE, version=VERSION, ready=False, waiting_for=["the world"])


async def test_a_task_that_ends_by_itself_takes_the_process_down(start):
    async def short():
        await asyncio.sleep(0)

    async def live():
        async with start() as host:
            host.spawn("short", short())
            await asyncio.sleep(5)

    with pytest.raises(ExceptionGroup) as caught:
        await live()
    assert caught.group_contains(TaskEndedError, match="short")


async def test_a_task_that_fails_takes_the_process_down(start):
    async def broken():
        raise ValueError("a bug")

    async def live():
        async with start() as host:
            host.spawn("broken", broken())
            await asyncio.sleep(5)

    with pytest.raises(ExceptionGroup) as caught:
        await live()
    assert caught.group_contains(ValueError, match="a bug")


async def test_everything_stops_in_reverse_order(start):
    order = []

    async def work(name):
        try:
            await asyncio.Event().wait()
        finally:
            order.append(name)

    async def closing():
        order.append("closing")

    async with start() as host:
        host.spawn("first", work("first"))
        host.on_stop(closing)
        host.spawn("last", work("last"))
        await asyncio.sleep(0)
    assert order == ["last", "closing", "first"]


async def test_one_cancellation_ends_a_task_whose_result_comes_at_the_same_moment(start):
    """What `asyncio.wait_for` of Python 3.11 gets wrong: cancelled in the very turn in which its inner work is done, it goes on."""
    turns, cancelled = 0, 0
    event = asyncio.Event()

    async def work():
        nonlocal turns, cancelled
        try:
            while True:
                async with asyncio.timeout(10):
                    await event.wait()
                turns += 1
                event.clear()
        except asyncio.CancelledError:
            cancelled += 1
            raise

    async with start() as host:
        host.spawn("work", work())
        await asyncio.sleep(0)
        event.set()  # the result is there, and the host stops before the task has seen it
    assert (turns, cancelled) == (0, 1)


async def test_a_task_that_swallows_one_cancellation_is_ended_all_the_same(start, monkeypatch):
    monkeypatch.setattr("libs.common.cancellation.CANCEL_AGAIN_S", 0.01)
    swallowed = 0

    async def deaf():
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed > 1:
                    raise

    async with start() as host:
        host.spawn("deaf", deaf())
        await asyncio.sleep(0)
    assert swallowed == 2
