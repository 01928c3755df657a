"""One call through the front door, from decision to end: it is registered while it runs, and written down as the audit policies say.

The routes make a `Call` for each request they relay (`Calls.admit`), and use `Calls.refused` for each they refuse.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from libs.common import errors
from libs.common.access.grants import Grants
from libs.common.audit import bodies
from libs.common.audit.event import RawEvent, Recordable
from libs.common.audit.policy import Decision, Facts, Policy
from libs.common.audit.request import RequestInfo, is_long_running, parse_request
from libs.common.relay.decision import Reshape, Tap
from libs.common.relay.exchange import Exchange
from libs.common.relay.head import RequestHead, ResponseHead
from libs.common.relay.impersonation import Wish
from libs.common.relay.session import Session
from libs.common.resources.audit import Stage
from services.auth_proxy.audit_tap import BodyTap, Budget, NoBodies
from services.auth_proxy.authenticate import Caller
from services.auth_proxy.figures import Figures
from services.auth_proxy.namespace_watch import Narrowed

_READS = (b"GET", b"HEAD", b"OPTIONS")
_CLUSTER_PREFIX = b"/k8s/clusters/"
_NO_GROUPS: frozenset[str] = frozenset()
Key = tuple[str, str]
"""(name of the token, name of the cluster or ""): what decides alike about all streams that share it."""


class AuditSink(Protocol):
    """What takes events: `audit.AuditLog`."""

    def write(self, event: Recordable) -> None:
        """Take one event; never waits."""
        ...

    def check_room(self) -> None:
        """Raises Unavailable when a call that is let in now could not be written down."""
        ...


class HasPolicy(Protocol):
    @property
    def current(self) -> Policy: ...


def is_watch(target: bytes) -> bool:
    query = target.partition(b"?")[2]
    return b"watch=" in query and any(part in (b"watch=true", b"watch=1") for part in query.split(b"&"))


class Call:
    """A `relay.decision.Watcher`. `groups` is what the call was let in with; losing one of them ends it.

    `decision` says what the audit policies want of it. Whoever lets a call act as somebody else sets `impersonated` (username, uid,
    groups, extra, as in an Event); whoever records its session sets `recording` to the recording's id and has the tap.
    """

    __slots__ = (
        "_calls", "_long", "at", "bodies", "bytes_in", "bytes_out", "caller", "cluster", "cluster_uid", "decision", "error", "exchange",
        "groups", "head", "impersonated", "info", "key", "narrowed", "number", "peer", "received", "recording", "status",
    )  # fmt: skip

    def __init__(
        self, calls: Calls, number: int, peer: str, caller: Caller | None, info: RequestInfo, head: RequestHead, decision: Decision,
        cluster: str = "", cluster_uid: str = "", groups: frozenset[str] = _NO_GROUPS,
    ) -> None:  # fmt: skip
        self._calls = calls
        self.number = number
        self.received = time.time()
        self.peer = peer
        self.caller = caller
        self.info = info
        self.head = head
        self.decision = decision
        self.cluster = cluster
        self.key: Key = (caller.principal.token if caller is not None else "", cluster)
        self.cluster_uid = cluster_uid
        self.groups = groups
        self.impersonated: dict[str, Any] | None = None
        self.recording = ""
        self.narrowed: Narrowed | None = None
        """Set for a watch that shows its caller a part of what there is."""
        self.bodies: BodyTap | NoBodies | None = None
        self.exchange: Exchange | None = None
        self._long = False

    @property
    def tap(self) -> Tap | None:
        """What has to see the bodies, if anything."""
        return self.bodies if isinstance(self.bodies, BodyTap) else None

    @property
    def is_handed_over(self) -> bool:
        """The gateway has all of a request to change something: cutting it undoes nothing and hides what became of it."""
        exchange = self.exchange
        if self.cluster or exchange is None or not exchange.request_done:
            return False
        return not exchange.request.upgrade and exchange.request.method not in _READS

    def announcing(self, reshape: Reshape) -> Reshape:
        """`reshape`, which also writes ResponseStarted down where the call may go on for long: an open exec is seen while it runs."""
        if not self._long:
            return reshape

        def announce(head: ResponseHead, close: bool) -> bytes:
            built = reshape(head, close)
            self._calls.started(self, head.status)
            return built

        return announce

    def began(self, exchange: Exchange) -> None:
        self.exchange = exchange
        if self.caller is not None:
            streams = self._calls.open.get(self.key)
            if streams is None:
                self._calls.open[self.key] = {self}
            else:
                streams.add(self)

    def ended(self, exchange: Exchange) -> None:
        if self.caller is not None:
            streams = self._calls.open.get(self.key)
            if streams is not None:
                streams.discard(self)
                if not streams:
                    del self._calls.open[self.key]
        self.at = time.time()
        self.status = exchange.status
        self.error = exchange.error
        self.bytes_in = exchange.bytes_in
        self.bytes_out = exchange.bytes_out
        # What waits to be written must not keep the connections alive.
        self.exchange = None
        self._calls.ended(self)

    @property
    def weight(self) -> int:
        return len(self.head.target) + self.head.block.weight

    def to_event(self) -> RawEvent:
        """The facts of ResponseComplete; beside the loop."""
        event = _event_of(self, "ResponseComplete", self.at, self.status)
        event.error, event.bytes_in, event.bytes_out, event.bodies = (
            self.error,
            self.bytes_in,
            self.bytes_out,
            self.bodies,
        )
        return event

    def cut(self, error: errors.HerdsmanError) -> None:
        if self.exchange is None:
            return
        # Whoever followed a part must learn that there is less of it; where that can't be said at this moment, the cut does not wait.
        if self.narrowed is None or not self.narrowed.end(self.exchange):
            self.exchange.fail(error)

    def review(self, caller: Caller, grants: Grants) -> None:
        """End a watch whose caller may see something else now than what it shows."""
        if self.narrowed is not None and self.exchange is not None and not self.narrowed.is_current(caller, grants):
            self.narrowed.end(self.exchange)

    def expect_long(self) -> None:
        self._long = True


class _Started:
    """ResponseStarted of a call."""

    __slots__ = ("_at", "_call", "_status", "bodies")

    def __init__(self, call: Call, at: float, status: int) -> None:
        self._call = call
        self._at = at
        self._status = status
        self.bodies = None

    @property
    def weight(self) -> int:
        return self._call.weight

    def to_event(self) -> RawEvent:
        return _event_of(self._call, "ResponseStarted", self._at, self._status)


def _event_of(call: Call, stage: Stage, at: float, status: int) -> RawEvent:
    event = RawEvent(
        stage, call.number, call.received, at, call.info, call.head.target, call.peer, call.head.value(b"user-agent"),
        call.caller.principal if call.caller is not None else None, call.groups, call.cluster, call.cluster_uid, call.decision, status,
    )  # fmt: skip
    event.impersonated = call.impersonated
    event.session = call.recording
    return event


class Calls:
    """All open calls of this process, by what decides about them, and the way to the audit log."""

    def __init__(
        self, sink: AuditSink, policy: HasPolicy, find_uid: Callable[[str], str], figures: Figures | None = None
    ) -> None:
        """`find_uid`: name of a living cluster → its uid, or ""."""
        self._sink = sink
        self._policy = policy
        self._find_uid = find_uid
        self._figures = figures
        self._number = 0
        self._budget = Budget()
        self.open: dict[Key, set[Call]] = {}
        self.check_room = sink.check_room

    def admit(
        self, head: RequestHead, session: Session, caller: Caller | None, target: bytes,
        cluster: str = "", cluster_uid: str = "", groups: frozenset[str] = _NO_GROUPS,
    ) -> Call:  # fmt: skip
        """The call for a request that is let through; `target` is what the far side will see."""
        text = target.decode("latin-1")
        upgrade = bool(head.upgrade)
        info = parse_request(head.method.decode("ascii"), text, upgrade=upgrade)
        decision = self._decide(info, caller, cluster, groups)
        self._number += 1
        call = Call(self, self._number, session.peer, caller, info, head, decision, cluster, cluster_uid, groups)
        if decision.level != "None":
            if is_long_running(info, text.partition("?")[2], upgrade=upgrade):
                call.expect_long()
            if decision.wants_request:
                why = bodies.refuse_reason(info, decision, upgrade=upgrade)
                call.bodies = (
                    NoBodies(why) if why else BodyTap(self._budget, head, response=decision.wants_response)
                )  # fmt: skip
        return call

    def refused(
        self, head: RequestHead, session: Session, error: errors.HerdsmanError, caller: Caller | None, cluster: str = ""
    ) -> None:
        """Write down a call that was not let through."""
        target = head.target[len(_CLUSTER_PREFIX) + len(cluster) :] if cluster else head.target
        info = parse_request(head.method.decode("ascii"), target.decode("latin-1"), upgrade=bool(head.upgrade))
        decision = self._decide(info, caller, cluster, _NO_GROUPS)
        if self._figures is not None:
            self._figures.observe(bool(cluster), info.verb, error.http_status, 0.0, 0, 0)
        if decision.level == "None":
            return
        self._number += 1
        moment = time.time()
        event = RawEvent(
            "ResponseComplete", self._number, moment, moment, info, head.target, session.peer, head.value(b"user-agent"),
            caller.principal if caller is not None else None, _NO_GROUPS, cluster, self._find_uid(cluster) if cluster else "",
            decision, error.http_status,
        )  # fmt: skip
        event.refused = True
        event.error = error.message
        event.reason = error.reason
        self._sink.write(event)

    def started(self, call: Call, status: int) -> None:
        """The answer of a long call has begun."""
        decision = call.decision
        if decision.level != "None" and "ResponseStarted" not in decision.omit_stages:
            self._sink.write(_Started(call, time.time(), status))

    def ended(self, call: Call) -> None:
        if self._figures is not None:
            took_s = max(0.0, call.at - call.received)
            self._figures.observe(
                bool(call.cluster), call.info.verb, call.status, took_s, call.bytes_in, call.bytes_out
            )
        decision = call.decision
        if decision.level != "None" and "ResponseComplete" not in decision.omit_stages:
            self._sink.write(call)
        elif call.bodies is not None:
            call.bodies.release()

    def _decide(self, info: RequestInfo, caller: Caller | None, cluster: str, groups: frozenset[str]) -> Decision:
        verb, path, api_group, _, resource, subresource, namespace, name = info
        user = caller.principal.user if caller is not None else ""
        return self._policy.current.decide(
            Facts(verb, user, groups, cluster, api_group, resource, subresource, namespace, name, path)
        )


def describe_wish(wish: Wish) -> dict[str, Any]:
    """Whom a caller wishes to be, as `impersonatedUser` of an event."""
    user: dict[str, Any] = {"username": wish.user}
    if wish.uid:
        user["uid"] = wish.uid
    if wish.groups:
        user["groups"] = list(wish.groups)
    if wish.extras:
        extra: dict[str, list[str]] = {}
        for key, value in wish.extras:
            extra.setdefault(key, []).append(value)
        user["extra"] = extra
    return user
