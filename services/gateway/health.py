"""Probes: alive, and ready with all services behind. /readyz names what is missing; `?verbose` lists everything."""

from __future__ import annotations

import asyncio

from aiohttp import web

from libs.common import errors
from libs.common.contracts.messages import Empty
from libs.common.contracts.methods import OWNERS, PING
from services.gateway.call import Call
from services.gateway.state import State

PING_TIMEOUT_S = 1.0


class Health:
    """The front door is not asked: it asks here, and nobody would ever be ready first."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def alive(self, call: Call) -> web.StreamResponse:
        return web.Response(text="[+]ping ok\nlivez check passed\n" if "verbose" in call.request.query else "ok")

    async def ready(self, call: Call) -> web.StreamResponse:
        missing = {"gateway": self._state.waiting_for()}
        answers = await asyncio.gather(*(self._ask(service) for service in OWNERS))
        missing |= dict(zip(OWNERS, answers, strict=True))
        ok = not any(missing.values())
        verbose = "verbose" in call.request.query
        lines = [
            f"[+]{name} ok" if not waiting else f"[-]{name} failed: waiting for {', '.join(waiting)}"
            for name, waiting in missing.items()
            if waiting or verbose
        ]
        if ok and not verbose:
            return web.Response(text="ok")
        lines.append(f"readyz check {'passed' if ok else 'failed'}")
        return web.Response(status=200 if ok else 503, text="\n".join(lines) + "\n")

    async def _ask(self, service: str) -> list[str]:
        """What a service waits for; no answer is one thing."""
        method = PING[service]
        try:
            health = await self._state.bus.request(method.subject, Empty(), method.reply, timeout_s=PING_TIMEOUT_S)
        except errors.HerdsmanError:
            return ["an answer of the service"]
        return [] if health.ready else health.waiting_for or ["its start"]
