"""What observers tell the hub, and when: news at once, what is gone by a complete listing that others wait for."""

from __future__ import annotations

import asyncio

from libs.common.bus import wire
from libs.common.bus.base import Message
from libs.common.bus.memory import MemoryBus
from libs.common.contracts.messages import NamespacesObserved
from services.agent.observe_namespaces import pack, render_messages
from services.agent.publisher import COALESCE_S, Publisher

SUBJECT = "up.u1.st.namespaces"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_what_goes_is_told_with_what_goes_soon_after_it_and_news_do_not_wait_for_that() -> None:
    bus, clock, heard = MemoryBus(), Clock(), asyncio.Queue[NamespacesObserved]()

    async def hear(message: Message) -> None:
        heard.put_nowait(wire.parse(NamespacesObserved, message.data))

    publisher = Publisher(bus, SUBJECT, render_messages, "failed", clock, coalesce_s=0.0)
    for name in ("a", "b", "c"):
        publisher.put(name, pack((name, "", False), {}))
    publisher.keep({"a", "b", "c"})
    async with bus.listen(SUBJECT, hear):
        running = asyncio.create_task(publisher.run(), name="publisher")
        try:
            first = await heard.get()
            assert first.complete
            assert [n.name for n in first.namespaces] == ["a", "b", "c"]
            publisher.drop("a")
            publisher.drop("b")
            publisher.put("d", pack(("d", "p1", False), {}))
            news = await heard.get()
            assert not news.complete
            assert [n.name for n in news.namespaces] == ["d"]
            clock.now += COALESCE_S
            publisher.put("d", pack(("d", "p2", False), {}))
            whole = await heard.get()
            assert whole.complete
            assert [(n.name, n.project) for n in whole.namespaces] == [("c", ""), ("d", "p2")]
            assert heard.empty()
        finally:
            running.cancel()
            await asyncio.wait([running])
