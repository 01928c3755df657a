"""The promises of `libs.common.bus.base`, as a suite for every implementation.

A module that has one subclasses `BusConformance` and gives it two fixtures: `bus`, connected, and `break_off`, which makes
the server unreachable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from pydantic import BaseModel

from libs.common import errors
from libs.common.bus.base import Bus, Message
from libs.common.bus.wire import pack, parse
from libs.common.observe import trace
from tests.store.watching import eventually

TRACEPARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


class Text(BaseModel):
    text: str = ""


async def echo(message: Message) -> Text:
    return parse(Text, message.data)


class BusConformance:
    # ── requests ──

    async def test_a_request_is_answered(self, bus: Bus) -> None:
        async with bus.serve("svc.identity.v1.echo", echo, queue="identity"):
            answer = await bus.request("svc.identity.v1.echo", Text(text="hallo"), Text)
        assert answer.text == "hallo"

    async def test_the_handlers_error_is_raised_at_the_caller(self, bus: Bus) -> None:
        async def refuse(_message: Message) -> BaseModel:
            raise errors.Invalid(
                "wrong", kind="User", name="ann", causes=[errors.Cause("spec.x", "is wrong")], retry_after_s=3
            )

        async with bus.serve("svc.identity.v1.refuse", refuse, queue="identity"):
            with pytest.raises(errors.Invalid) as caught:
                await bus.request("svc.identity.v1.refuse", Text(), Text)
        error = caught.value
        assert (error.message, error.kind, error.name, error.retry_after_s) == ("wrong", "User", "ann", 3)
        assert error.causes == (errors.Cause("spec.x", "is wrong"),)

    async def test_a_bug_in_a_handler_is_answered_without_details(self, bus: Bus) -> None:
        async def fail(_message: Message) -> BaseModel:
            raise RuntimeError("secret detail")

        async with bus.serve("svc.identity.v1.fail", fail, queue="identity"):
            with pytest.raises(errors.Internal) as caught:
                await bus.request("svc.identity.v1.fail", Text(), Text)
        assert "secret" not in caught.value.message

    async def test_what_nobody_serves_is_unavailable_at_once(self, bus: Bus) -> None:
        began = time.monotonic()
        with pytest.raises(errors.Unavailable, match='the service "nobody" does not answer'):
            await bus.request("svc.nobody.v1.echo", Text(), Text, timeout_s=5)
        assert time.monotonic() - began < 2

    async def test_no_answer_in_time_is_a_timeout(self, bus: Bus) -> None:
        release = asyncio.Event()

        async def wait(_message: Message) -> BaseModel:
            await release.wait()
            return Text()

        async with bus.serve("svc.identity.v1.wait", wait, queue="identity"):
            with pytest.raises(errors.Timeout):
                await bus.request("svc.identity.v1.wait", Text(), Text, timeout_s=0.1)
            release.set()

    async def test_an_answer_of_another_form_is_an_error(self, bus: Bus) -> None:
        class Strict(BaseModel):
            number: int

        async with bus.serve("svc.identity.v1.echo", echo, queue="identity"):
            with pytest.raises(errors.Internal, match="Strict"):
                await bus.request("svc.identity.v1.echo", Text(text="x"), Strict)

    async def test_a_handler_knows_subject_tokens_deadline_and_trace(self, bus: Bus) -> None:
        seen: list[Message] = []

        async def note(message: Message) -> BaseModel:
            seen.append(message)
            return Text()

        async with bus.serve("up.*.rpc.cluster_controller.desired", note, queue="cluster_controller"):
            with trace.span("test", TRACEPARENT):
                await bus.request("up.c1.rpc.cluster_controller.desired", Text(), Text, timeout_s=2.5)
        (message,) = seen
        assert message.subject == "up.c1.rpc.cluster_controller.desired"
        assert message.tokens == ("c1",)
        assert message.deadline_s == pytest.approx(2.5)
        assert message.headers.get(trace.HEADER) == TRACEPARENT

    async def test_replicas_share_requests(self, bus: Bus) -> None:
        answered: list[str] = []

        def replica(name: str) -> Callable[[Message], Awaitable[BaseModel]]:
            async def answer(_message: Message) -> BaseModel:
                answered.append(name)
                return Text(text=name)

            return answer

        async with (
            bus.serve("svc.identity.v1.who", replica("a"), queue="identity"),
            bus.serve("svc.identity.v1.who", replica("b"), queue="identity"),
        ):
            await asyncio.gather(*(bus.request("svc.identity.v1.who", Text(), Text) for _ in range(60)))
        assert len(answered) == 60
        assert set(answered) == {"a", "b"}

    async def test_only_so_many_handlers_run_at_once_and_the_rest_is_told_to_come_back(self, bus: Bus) -> None:
        release = asyncio.Event()
        running = most = 0

        async def work(_message: Message) -> BaseModel:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await release.wait()
            running -= 1
            return Text()

        async with bus.serve("svc.identity.v1.work", work, queue="identity", concurrency=3):
            requests = [
                asyncio.create_task(bus.request("svc.identity.v1.work", Text(), Text, timeout_s=10)) for _ in range(9)
            ]
            await eventually(lambda: sum(r.done() for r in requests) == 3)
            release.set()
            outcomes = await asyncio.gather(*requests, return_exceptions=True)
        refused = [o for o in outcomes if isinstance(o, errors.Unavailable)]
        assert [o.retry_after_s for o in refused] == [1, 1, 1]
        assert sum(isinstance(o, Text) for o in outcomes) == 6
        assert most == 3

    async def test_a_request_whose_caller_has_gone_is_not_handled(self, bus: Bus) -> None:
        release = asyncio.Event()
        handled: list[str] = []

        async def work(message: Message) -> BaseModel:
            handled.append(parse(Text, message.data).text)
            await release.wait()
            return Text()

        async with bus.serve("svc.identity.v1.work", work, queue="identity", concurrency=1):
            first = asyncio.create_task(bus.request("svc.identity.v1.work", Text(text="first"), Text))
            await eventually(lambda: handled == ["first"])
            with pytest.raises(errors.Timeout):
                await bus.request("svc.identity.v1.work", Text(text="late"), Text, timeout_s=0.1)
            await asyncio.sleep(0.05)
            release.set()
            await first
        assert handled == ["first"]

    async def test_on_exit_running_requests_finish_and_new_ones_are_not_taken(self, bus: Bus) -> None:
        began, release = asyncio.Event(), asyncio.Event()

        async def work(_message: Message) -> BaseModel:
            began.set()
            await release.wait()
            return Text(text="done")

        async def serve() -> None:
            async with bus.serve("svc.identity.v1.work", work, queue="identity"):
                await began.wait()

        serving = asyncio.create_task(serve())
        await asyncio.sleep(0.05)
        first = asyncio.create_task(bus.request("svc.identity.v1.work", Text(), Text))
        await began.wait()
        await asyncio.sleep(0.05)
        with pytest.raises(errors.Unavailable):
            await bus.request("svc.identity.v1.work", Text(), Text)
        release.set()
        assert (await first).text == "done"
        await serving

    # ── messages ──

    async def test_messages_are_heard_one_at_a_time_in_order(self, bus: Bus) -> None:
        heard: list[tuple[str, ...]] = []
        texts: list[str] = []

        async def note(message: Message) -> None:
            await asyncio.sleep(0)
            heard.append(message.tokens)
            texts.append(parse(Text, message.data).text)

        async with bus.listen("up.*.st.*", note):
            for number in range(100):
                await bus.publish("up.c1.st.nodes", Text(text=str(number)))
            await eventually(lambda: len(heard) == 100)
        assert texts == [str(n) for n in range(100)]
        assert set(heard) == {("c1", "nodes")}

    async def test_a_listener_that_raises_hears_the_next_message(self, bus: Bus) -> None:
        heard: list[str] = []

        async def note(message: Message) -> None:
            heard.append(parse(Text, message.data).text)
            if len(heard) == 1:
                raise RuntimeError("broken")
            if len(heard) == 2:
                raise errors.Invalid("wrong")

        async with bus.listen("up.c1.hb", note):
            for text in ("a", "b", "c"):
                await bus.publish("up.c1.hb", Text(text=text))
            await eventually(lambda: heard == ["a", "b", "c"])

    async def test_everybody_hears_a_message_but_only_one_of_a_queue(self, bus: Bus) -> None:
        counts = {"q1": 0, "q2": 0, "all1": 0, "all2": 0}

        def count(name: str) -> Callable[[Message], Awaitable[None]]:
            async def note(_message: Message) -> None:
                counts[name] += 1

            return note

        async with (
            bus.listen("up.*.hb", count("q1"), queue="registry"),
            bus.listen("up.*.hb", count("q2"), queue="registry"),
            bus.listen("up.*.hb", count("all1")),
            bus.listen("up.>", count("all2")),
        ):
            for _ in range(40):
                await bus.publish("up.c1.hb", Text())
            await eventually(lambda: counts["all1"] == counts["all2"] == counts["q1"] + counts["q2"] == 40)
        assert counts["q1"] > 0
        assert counts["q2"] > 0

    async def test_a_listener_that_is_too_slow_loses_the_oldest(self, bus: Bus) -> None:
        release = asyncio.Event()
        heard: list[int] = []

        async def note(message: Message) -> None:
            await release.wait()
            heard.append(int(parse(Text, message.data).text))

        async with bus.listen("up.c1.hb", note):
            for number in range(3000):
                await bus.publish("up.c1.hb", Text(text=str(number)))
            await asyncio.sleep(0.5)
            release.set()
            await eventually(lambda: bool(heard) and heard[-1] == 2999)
        assert heard == sorted(heard)
        assert len(heard) < 1100

    async def test_a_message_that_nobody_hears_is_nobodys_error(self, bus: Bus) -> None:
        await bus.publish("up.c1.hb", Text())

    # ── without a server ──

    async def test_without_a_connection_all_is_unavailable_at_once(
        self, bus: Bus, break_off: Callable[[], Awaitable[None]]
    ) -> None:
        assert bus.connected
        await break_off()
        await eventually(lambda: not bus.connected)
        with pytest.raises(errors.Unavailable, match="bus is not reachable"):
            await bus.publish("up.c1.hb", Text())
        with pytest.raises(errors.Unavailable, match="bus is not reachable"):
            await bus.request("svc.identity.v1.echo", Text(), Text)


def test_a_payload_crosses_the_wire_unchanged() -> None:
    assert parse(Text, pack(Text(text="ünïcode"))) == Text(text="ünïcode")
