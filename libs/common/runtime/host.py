"""What a service's `build()` gets: the bus, stores, informers, and the means to serve, listen, spawn and say when it is ready.

Everything is started in the order in which `build()` asks for it and stopped in reverse. A task that ends although nobody
asked it to takes the process down, loudly: half a service is worse than one that its supervisor restarts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from libs.common import errors
from libs.common.bus import wire
from libs.common.bus.base import Bus, Message
from libs.common.cancellation import end
from libs.common.contracts.messages import Empty, Health
from libs.common.contracts.methods import PING, Method
from libs.common.crypto.envelope import Verifier
from libs.common.observe import client, log, metrics, trace
from libs.common.runtime.config import ServiceConfig
from libs.common.store.base import Store
from libs.common.store.informer import Informer
from libs.common.version import VERSION

C = TypeVar("C", bound=ServiceConfig)
Q = TypeVar("Q", bound=BaseModel)
A = TypeVar("A", bound=BaseModel)


"""Longer than any task takes to clean up after itself."""


class TaskEndedError(RuntimeError):
    """A task that should run as long as the process does has ended."""


class Host(Generic[C]):
    """One service process. Constructed by `run`, handed to `build()`."""

    def __init__(
        self,
        service: str,
        config: C,
        bus: Bus,
        open_store: Callable[[str], Store],
        verifier: Verifier,
        tasks: asyncio.TaskGroup,
        stack: AsyncExitStack,
    ) -> None:
        self.service = service
        self.config = config
        self.bus = bus
        self.verifier = verifier
        self.log = log.get(service)
        self._open_store = open_store
        self._tasks = tasks
        self._stack = stack
        self._stores: dict[str, Store] = {}
        self._informers: dict[tuple[str, str], Informer] = {}
        self._checks: list[tuple[str, Callable[[], bool]]] = [("bus", lambda: bus.connected)]
        self._stopping = False
        self._built = False

    # ── clocks ──

    @staticmethod
    def now() -> datetime:
        """Aware UTC, for records."""
        return datetime.now(UTC)

    @staticmethod
    def monotonic() -> float:
        """Seconds, for waiting."""
        return time.monotonic()

    # ── state ──

    def store(self, bucket: str) -> Store:
        """The bucket, one object for all who ask. Only the owner may write it; the server refuses others."""
        if bucket not in self._stores:
            self._stores[bucket] = self._open_store(bucket)
        return self._stores[bucket]

    async def informer(self, bucket: str, prefix: str = "") -> Informer:
        """A started informer, one for all who ask for the same; this process is not ready before it is synced."""
        key = (bucket, prefix)
        if key not in self._informers:
            name = f"{bucket}/{prefix}" if prefix else bucket
            made = Informer(self.store(bucket), prefix, name=f"{self.service}-{bucket}-{prefix or 'all'}")
            self._informers[key] = made
            self.ready_when(f"informer {name}", made.synced.is_set)
            self.spawn(f"informer {name}", made.run())
        return self._informers[key]

    async def synced(self) -> None:
        """Wait until every informer so far has its first complete listing."""
        for informer in self._informers.values():
            await informer.synced.wait()

    # ── work ──

    async def serve(
        self, method: Method[Q, A], handler: Callable[[Q, Message], Awaitable[A]], *, concurrency: int = 64
    ) -> None:
        """Answer `method` from now on; replicas of the service share the work."""
        seconds = metrics.method_seconds()

        async def answer(message: Message) -> BaseModel:
            began = time.perf_counter()
            outcome = "ok"
            with (
                trace.span(f"{method.service}.{method.name}", message.headers.get(trace.HEADER, "")),
                client.entered(client.parse(message.headers)),
            ):
                try:
                    return await handler(wire.parse(method.request, message.data), message)
                except errors.HerdsmanError as exc:
                    outcome = exc.reason
                    raise
                except Exception as exc:
                    outcome = errors.Internal.reason
                    self.log.exception("method_failed", method=method.name)
                    raise errors.Internal(f"{self.service} failed to answer; its log says why") from exc
                finally:
                    seconds.labels(method.name, outcome).observe(time.perf_counter() - began)

        serving = self.bus.serve(method.subject, answer, queue=self.service, concurrency=concurrency)
        await self._stack.enter_async_context(serving)

    async def listen(
        self, subject: str, model: type[Q], listener: Callable[[Q, Message], Awaitable[None]], *, queue: str = ""
    ) -> None:
        """Hear messages on `subject` from now on; one that cannot be read or handled is logged and left."""

        async def hear(message: Message) -> None:
            try:
                await listener(wire.parse(model, message.data), message)
            except errors.HerdsmanError as exc:
                self.log.warning("message_refused", subject=subject, reason=exc.reason, message=exc.message)
            except Exception:
                self.log.exception("message_failed", subject=subject)

        await self._stack.enter_async_context(self.bus.listen(subject, hear, queue=queue))

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as long as the process lives. If it ends by itself, the process ends, so that its supervisor restarts it."""

        async def guarded() -> None:
            await work
            if not self._stopping:
                raise TaskEndedError(f"the task {name!r} of {self.service} ended although nobody asked it to")

        task = self._tasks.create_task(guarded(), name=name)
        self._stack.push_async_callback(end, task)
        return task

    def on_stop(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call `callback` when stopping, in reverse order of all that was started."""

        async def stop() -> None:
            await callback()

        self._stack.push_async_callback(stop)

    # ── readiness ──

    def ready_when(self, name: str, check: Callable[[], bool]) -> None:
        """Not ready before `check()` holds; `name` is what /readyz says is missing."""
        self._checks.append((name, check))

    def waiting_for(self) -> list[str]:
        """What is missing for readiness; empty = ready."""
        missing = [name for name, check in self._checks if not check()]
        return missing if self._built else ["start", *missing]

    async def finish_build(self) -> None:
        """Called by `run` after `build()`: from now on the process can be ready, and answers `ping`."""
        self._built = True

        async def ping(_request: Empty, _message: Message) -> Health:
            missing = self.waiting_for()
            return Health(service=self.service, version=VERSION, ready=not missing, waiting_for=missing)

        await self.serve(PING[self.service], ping)

    def begin_stop(self) -> None:
        """Called by `run`: tasks may end now, and readiness is withdrawn so that nobody sends new work."""
        self._stopping = True
        self._checks.insert(0, ("stopping", lambda: False))
