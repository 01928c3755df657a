"""Several LDAP servers behind one async face: own threads, pooled connections, a deadline for each call, and fail-over.

Work is a function of a connection that is bound as the service account. It runs in a thread; when its deadline passes, the connection is cut under it, so
that a server which says nothing holds nobody. A server that failed is not asked again for some seconds while another one answers.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from libs.common import errors
from libs.common.observe import log
from libs.common.resources.providers import DirectorySettings
from services.identity.providers.ldap.link import Link, WrongCredentials

T = TypeVar("T")
THREADS = 8
QUEUE = 64
"""Calls inside at once; more are told to come again."""
IDLE_S = 60.0
"""A connection that rested longer is not trusted: firewalls forget them in silence."""
AVOID_S = 15.0
REFUSED_S = 600.0
"""A directory that refused our own password is not given it again for so long: it locks whom it refuses often, and others may use the account, too."""


@dataclass(slots=True)
class _Call:
    """What a thread works with now, so that the loop can cut it. `over`: nobody waits for it any more."""

    links: list[Link] = field(default_factory=list)
    over: bool = False


class Directory:
    """`run` for work with the service account, `check` for a person's own password."""

    def __init__(self, name: str, settings: DirectorySettings) -> None:
        self._name = name
        self._settings = settings
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix=f"ldap-{name}")
        self._resting: list[tuple[float, Link]] = []
        self._avoided: dict[str, float] = {}
        self._refused_until = 0.0
        self._inside = 0
        self._closed = False

    async def run(self, work: Callable[[Link], T], deadline_s: float) -> T:
        """`work` with a connection. Raises Unavailable when no server answers in time; on a connection that had died it is begun again."""

        def job(call: _Call) -> T:
            link, rested = self._take(call)
            try:
                return self._finish(call, link, work)
            except errors.Unavailable:
                if not rested or call.over:
                    raise
                # It died while it rested: that says nothing about the server.
                return self._finish(call, self._open_own(call), work)

        return await self._in_thread(job, deadline_s)

    async def check(self, dn: str, password: str, work: Callable[[Link], T], deadline_s: float) -> T:
        """Bind as this person on a connection of its own, and do `work` there. Raises WrongCredentials, Unavailable."""

        def job(call: _Call) -> T:
            link = self._open(call, dn, password)
            try:
                return work(link)
            finally:
                link.close()

        return await self._in_thread(job, deadline_s)

    async def aclose(self) -> None:
        """Cut what rests and wait for what runs, which its own deadline ends."""
        self._closed = True
        while self._resting:
            await asyncio.to_thread(self._resting.pop()[1].close)
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    # ── in a thread ──

    def _finish(self, call: _Call, link: Link, work: Callable[[Link], T]) -> T:
        try:
            done = work(link)
        except BaseException:
            link.close()
            raise
        if call.over or self._closed:
            link.close()
        else:
            self._resting.append((time.monotonic(), link))
        return done

    def _take(self, call: _Call) -> tuple[Link, bool]:
        while True:
            try:
                since, link = self._resting.pop()
            except IndexError:
                return self._open_own(call), False
            if time.monotonic() - since < IDLE_S:
                call.links.append(link)
                return link, True
            link.close()

    def _open_own(self, call: _Call) -> Link:
        """As the service account. New settings are another directory, which begins anew."""
        if time.monotonic() < self._refused_until:
            raise WrongCredentials("it was refused lately, and is not tried again so soon")
        try:
            return self._open(call, self._settings.bind_dn, self._settings.bind_password)
        except WrongCredentials:
            self._refused_until = time.monotonic() + REFUSED_S
            raise

    def _open(self, call: _Call, dn: str, password: str) -> Link:
        problem: errors.HerdsmanError = errors.Unavailable(f'the directory "{self._name}" has no server')
        for server in self._order():
            if call.over:
                raise problem
            link = Link(server, self._settings)
            call.links.append(link)
            try:
                link.open(dn, password)
            except errors.Unavailable as exc:
                self._avoided[server] = time.monotonic() + AVOID_S * random.uniform(0.7, 1.3)
                log.get("identity").warning(
                    "directory_server_failed", provider=self._name, server=server, error=exc.message
                )
                problem = exc
                continue
            self._avoided.pop(server, None)
            return link
        raise problem

    def _order(self) -> Sequence[str]:
        """Servers that failed lately come last: they are still better than none."""
        now = time.monotonic()
        return sorted(self._settings.servers, key=lambda server: self._avoided.get(server, 0.0) > now)

    # ── in the loop ──

    async def _in_thread(self, job: Callable[[_Call], T], deadline_s: float) -> T:
        if self._closed:
            raise errors.Unavailable(f'the provider "{self._name}" was changed just now: try again', retry_after_s=1)
        if self._inside >= QUEUE:
            raise errors.Unavailable(
                f'the directory "{self._name}" is asked too much at once: try again in a few seconds', retry_after_s=3
            )
        self._inside += 1
        call = _Call()
        future = asyncio.get_running_loop().run_in_executor(self._pool, job, call)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(future)
        except TimeoutError as exc:
            raise errors.Unavailable(
                f'the directory "{self._name}" did not answer within {deadline_s:g} s: try again, or tell its administrator'
            ) from exc
        finally:
            self._inside -= 1
            if not future.done():
                call.over = True
                for link in call.links:
                    link.abort()
                future.add_done_callback(_forget)


def _forget(future: asyncio.Future[T]) -> None:
    """Nobody waits for its outcome any more; what went wrong was told already."""
    if not future.cancelled():
        future.exception()


__all__ = ["Directory", "WrongCredentials"]
