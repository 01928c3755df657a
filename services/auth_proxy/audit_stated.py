"""What other services of the hub state about themselves, into this process's audit log: signed and chained like the calls.

Each source has a subject of its own on which the bus lets nobody else ask (`contracts.permissions`), so none can speak for another; none can
change or take back what is written.
"""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.audit.stated import StatedEvent
from libs.common.bus.base import Message
from libs.common.contracts.messages import Empty, IdentityEvents
from services.auth_proxy.calls import AuditSink


@dataclass(frozen=True, slots=True)
class Stated:
    """`source` is the service that speaks."""

    source: str
    sink: AuditSink

    async def take(self, request: IdentityEvents, _message: Message) -> Empty:
        """All or none; as safe as the event of a call whose answer was sent. Raises Unavailable where there is no room for calls either."""
        self.sink.check_room()
        for event in request.events:
            self.sink.write(StatedEvent(self.source, event))
        return Empty()
