"""The contract of the bus: request and reply with deadlines and typed errors, and plain messages.

A handler gets a `Request` and returns a model or raises a family of `libs.common.errors`, which the caller gets raised
again. Identity never travels in headers: for an agent it is the cluster in the subject, which its credential confines;
for a person it is the signed envelope in the payload.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `tokens` are the values of the subject's wildcards, in order (`up.*.hb` → the cluster)."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    tokens: tuple[str, ...] = ()
    deadline_s: float | None = None
    """Seconds that the caller still waits when the message arrived; None when it did not say."""


Handler = Callable[[Message], Awaitable[BaseModel]]
Listener = Callable[[Message], Awaitable[None]]


class Bus(Protocol):
    """Payloads are pydantic models, msgpack on the wire (`libs.common.bus.wire`)."""

    async def request(self, subject: str, payload: BaseModel, reply: type[M], *, timeout_s: float = 5.0) -> M:
        """Ask and wait. Raises the handler's error; Unavailable when nobody serves the subject; Timeout when no answer came."""
        ...

    async def publish(self, subject: str, payload: BaseModel) -> None:
        """Send and forget: at most once. Raises Unavailable while disconnected, nothing is buffered."""
        ...

    def serve(
        self, subject: str, handler: Handler, *, queue: str, concurrency: int = 64
    ) -> AbstractAsyncContextManager[None]:
        """Answer requests on `subject` (may have `*`) while the context is open; replicas share the queue group.

        At most `concurrency` handlers run at once; requests beyond twice that are answered Unavailable(retry_after 1), and
        one whose deadline has passed is dropped. On exit no new request is taken and the running ones finish.
        """
        ...

    def listen(self, subject: str, listener: Listener, *, queue: str = "") -> AbstractAsyncContextManager[None]:
        """Get messages on `subject` while the context is open, one at a time in order; a full queue drops the oldest, counted."""
        ...

    @property
    def connected(self) -> bool:
        """Whether the server answers now."""
        ...
