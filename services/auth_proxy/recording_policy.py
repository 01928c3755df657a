"""Which calls are sessions, and which of those must be recorded: path and query → facts → the audit policies' word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from urllib.parse import parse_qsl, unquote_to_bytes

from libs.common import errors
from libs.common.audit.policy import Facts
from libs.common.recording import model
from libs.common.recording.log import new_id
from libs.common.recording.websocket import PROTOCOLS
from libs.common.relay.decision import Relay
from libs.common.relay.head import RequestHead
from services.auth_proxy.calls import Call, HasPolicy

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
Wrap = Callable[[Relay, model.Facts], Relay]


@dataclass(frozen=True, slots=True)
class Session:
    """An exec or attach call, as its path and query say."""

    action: Literal["exec", "attach"]
    namespace: str
    pod: str
    container: str = ""
    command: list[str] = field(default_factory=list)
    tty: bool = False
    stdin: bool = False


def find_session(target: bytes) -> Session | None:
    """The session that this target, inside its cluster, begins; None for all else.

    A node's own exec, reached through the API server's node proxy, is one too: it runs the same programs in the same pods.
    """
    raw_path, _, raw_query = target.partition(b"?")
    parts = [part for part in unquote_to_bytes(raw_path).decode("utf-8", "replace").split("/") if part]
    container = ""
    match parts:
        case ["api", "v1", "namespaces", namespace, "pods", pod, ("exec" | "attach") as action]:
            pass
        case ["api", "v1", "nodes", _, "proxy", ("exec" | "attach") as action, namespace, pod, *_, container]:
            pass
        case ["api", "v1", "proxy", "nodes", _, ("exec" | "attach") as action, namespace, pod, *_, container]:
            pass
        case _:
            return None
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(raw_query.decode("latin-1"), keep_blank_values=True, encoding="utf-8"):
        query.setdefault(name, []).append(value)

    def first(*names: str) -> str:
        return next((query[name][0] for name in names if name in query), "")

    return Session(
        "exec" if action == "exec" else "attach",
        namespace,
        pod,
        container or first("container"),
        query.get("command", []),
        tty=first("tty") in _TRUE,
        stdin=first("stdin", "input") in _TRUE,
    )


class SessionRecording:
    """What the cluster route asks for each call that switches protocols."""

    def __init__(
        self, policy: HasPolicy, wrap: Wrap, audit_id: Callable[[int], str], now: Callable[[], datetime]
    ) -> None:
        """`audit_id`: number of a call → the id of its events in the audit log."""
        self._policy = policy
        self._wrap = wrap
        self._audit_id = audit_id
        self._now = now

    def relay(self, relay: Relay, head: RequestHead, target: bytes, call: Call) -> Relay:
        """The relay as it is, or recorded. Raises BadRequest for a session that must be recorded and can't be."""
        session = find_session(target)
        caller = call.caller
        if session is None or caller is None:
            return relay
        principal = caller.principal
        decision = self._policy.current.decide(
            Facts(
                verb="create", user=principal.user, groups=call.groups, cluster=call.cluster, resource="pods",
                subresource=session.action, namespace=session.namespace, name=session.pod,
            )
        )  # fmt: skip
        if not decision.record_sessions:
            return relay
        check_recordable(head)
        now = self._now()
        facts = model.Facts(
            id=new_id(now), started=now, audit_id=self._audit_id(call.number),
            user=principal.user, user_uid=principal.user_uid, token=principal.token, client=call.peer, cluster=call.cluster,
            cluster_uid=call.cluster_uid, namespace=session.namespace, pod=session.pod, container=session.container,
            action=session.action, command=session.command, tty=session.tty, stdin=session.stdin,
            carrier=head.upgrade.decode("ascii"), input_recorded=decision.record_input,
            acting_as=str((call.impersonated or {}).get("username", "")),
        )  # fmt: skip
        call.recording = facts.id
        return self._wrap(relay, facts)


def check_recordable(head: RequestHead) -> None:
    """Refuse before anything runs what no decoder would read. Raises BadRequest."""
    if head.upgrade != b"websocket":
        return
    offered = [name.strip() for value in head.values(b"sec-websocket-protocol") for name in value.split(b",")]
    if not offered or offered[0].decode("latin-1") not in PROTOCOLS:
        raise errors.BadRequest(
            f"this session has to be recorded, which works with the subprotocols {' and '.join(PROTOCOLS)} only: use a newer client"
        )
