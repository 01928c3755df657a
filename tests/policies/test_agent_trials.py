"""When the agent tries policies, on an API server that is there or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from libs.common import errors
from libs.common.bus.base import Message
from libs.common.bus.memory import MemoryBus
from libs.common.bus.wire import unpack
from libs.common.cancellation import end
from libs.common.contracts.messages import Empty, TrialReport
from libs.common.contracts.methods import REPORT_TRIAL
from libs.common.policies.pod_security import render_pod_security
from services.agent.trials import AGAIN_S, REPEAT_S, Trials
from tests.policies.made import template


class Cluster:
    """Has one namespace, and lets every label be rehearsed; or is away."""

    away = False

    async def pages(self, path: str, **more: Any) -> AsyncIterator[dict[str, Any]]:
        if self.away:
            raise errors.Unavailable("the API server is away")
        yield {"items": [{"metadata": {"name": "web"}}]}

    async def rehearse(self, method: str, path: str, body: Any) -> tuple[list[str], None]:
        return [], None


async def test_what_could_not_be_tried_is_tried_again_soon_and_what_was_is_not() -> None:
    bus, cluster, now, heard = MemoryBus(), Cluster(), [1000.0], asyncio.Queue[TrialReport]()
    desired: Any = SimpleNamespace(
        trials_changed=asyncio.Event(), parts={"pod-security/base": ("h", render_pod_security(template()))},
        applied={"pod-security/base": "h"},
    )  # fmt: skip

    async def handle(message: Message) -> Empty:
        heard.put_nowait(TrialReport.model_validate(unpack(message.data)))
        return Empty()

    async def pause(_seconds: float) -> None:
        await asyncio.sleep(0)

    client: Any = cluster
    trials = Trials(client, client, bus, "uid", desired, client, sleep=pause, monotonic=lambda: now[0])

    async def look(seconds: float) -> list[tuple[int, bool]]:
        now[0] += seconds
        desired.trials_changed.set()
        for _ in range(50):
            await asyncio.sleep(0)
        return [
            (report.looked, bool(report.message))
            for report in iter(lambda: heard.get_nowait() if heard.qsize() else None, None)
        ]

    async with bus.serve(REPORT_TRIAL.subject, handle, queue="hub"):
        cluster.away = True
        running = asyncio.create_task(trials.run())
        assert await look(0) == [(0, True)]
        cluster.away = False
        assert await look(AGAIN_S / 2) == []
        assert await look(AGAIN_S) == [(1, False)]
        assert await look(AGAIN_S * 3) == []
        assert await look(REPEAT_S * 1.2) == [(1, False)]
        await end(running)
