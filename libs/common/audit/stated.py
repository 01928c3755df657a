"""Events that a service states about itself (`IdentityEvent`), in the same shape as those of calls, so that one search finds both. Pure.

The front door writes them into its own chain; `source` is the service that may say such things, by the subject on which it said them.
"""

from __future__ import annotations

from typing import Any

from libs.common.audit.bodies import mask_credentials
from libs.common.audit.chain import render
from libs.common.audit.event import PREFIX, STATUS_REASONS, format_micro
from libs.common.contracts.messages import IdentityEvent
from libs.common.resources.meta import GROUP, VERSION

HUB = "system:herdsman"
"""Who acts where nobody asked: a sweep, a refresh."""


class StatedEvent:
    """A `Recordable`; policies decide nothing about it."""

    __slots__ = ("_event", "_source", "bodies")

    def __init__(self, source: str, event: IdentityEvent) -> None:
        self._source = source
        self._event = event
        self.bodies = None

    @property
    def weight(self) -> int:
        return 512 + len(self._event.agent) + len(self._event.note)

    def to_event(self) -> StatedEvent:
        return self

    def render(self, _chain: str) -> bytes:
        """One line. The id is the service's own, so that an event which was sent again is known by it."""
        event = self._event
        moment = format_micro(event.at.timestamp())
        document: dict[str, Any] = {
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": event.id, "stage": "ResponseComplete",
            "requestURI": f"{self._source}:{event.action}", "verb": event.action, "user": _user(event, self._source),
            "sourceIPs": [event.address] if event.address else [], "userAgent": mask_credentials(event.agent),
        }  # fmt: skip
        if event.resource:
            document["objectRef"] = {
                "resource": event.resource, **({"name": mask_credentials(event.name)} if event.name else {}), "apiGroup": GROUP,
                "apiVersion": VERSION,
            }  # fmt: skip
        document["responseStatus"] = _status(event)
        document["requestReceivedTimestamp"] = document["stageTimestamp"] = moment
        notes = {
            "source": self._source, "outcome": event.outcome, "decision": "allow" if event.outcome == "success" else "forbid",
            "reason": event.reason, "account": event.account, "provider": event.provider, "token": event.token,
            "note": mask_credentials(event.note),
        }  # fmt: skip
        if event.count > 1:
            notes["count"] = str(event.count)
        if event.since is not None:
            notes["since"] = format_micro(event.since.timestamp())
        document["annotations"] = {PREFIX + name: value for name, value in notes.items() if value}
        return render(document)


def _user(event: IdentityEvent, source: str) -> dict[str, Any]:
    if event.by == "hub":
        return {"username": f"{HUB}:{source}"}
    if event.by == "nobody":
        # Nobody proved to be the account: it stands in the annotations, not here.
        return {"username": "system:anonymous", "groups": ["system:unauthenticated"]}
    return {"username": event.actor, **({"uid": event.actor_uid} if event.actor_uid else {})}


def _status(event: IdentityEvent) -> dict[str, Any]:
    if event.outcome == "success":
        return {"metadata": {}, "code": event.code}
    status: dict[str, Any] = {"metadata": {}, "status": "Failure", "code": event.code}
    if event.code in STATUS_REASONS:
        status["reason"] = STATUS_REASONS[event.code]
    return status
