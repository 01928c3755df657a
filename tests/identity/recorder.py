"""The audit trail's double: events in a list, taken at once. Not imitated: a front door that is away (`tests/identity/test_audit_trail.py` has that)."""

from __future__ import annotations

from libs.common import errors
from libs.common.contracts.messages import IdentityEvent
from services.identity.audit.attempts import Attempts
from services.identity.audit.names import AccountNames


class Recorder:
    """`away`: nobody takes anything, and whoever waits is told so."""

    def __init__(self) -> None:
        self.events: list[IdentityEvent] = []
        self.full = False
        self.away = False

    def check_room(self) -> None:
        if self.full:
            raise errors.Unavailable("the audit log takes nothing at the moment", retry_after_s=1)

    def note(self, event: IdentityEvent) -> None:
        self.events.append(event)

    def note_failure(self, event: IdentityEvent, network: str, typed: str) -> None:
        self.events.append(event)

    async def write(self, event: IdentityEvent) -> None:
        self.events.append(event)
        if self.away:
            raise errors.Unavailable("the audit log did not take it in time", retry_after_s=1)

    @property
    def told(self) -> list[tuple[str, str, str, str]]:
        """(action, outcome, reason, account) of each."""
        return [(e.action, e.outcome, e.reason, e.account) for e in self.events]


def attempts_of(hub, trail: Recorder | None = None, withdraw=None, is_provider=lambda _name: True) -> Attempts:
    """On a hub in memory."""

    async def withdrawn(_token: str) -> None:
        return None

    return Attempts(
        trail or Recorder(), AccountNames(hub.informers["users"]), is_provider, withdraw or withdrawn, hub.now
    )
