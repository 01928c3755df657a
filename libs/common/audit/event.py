"""From the raw facts of a call to its `audit.k8s.io/v1` Event, as one line of JSON. Pure; runs beside the loop, never on it.

Shape: Kubernetes page "kube-apiserver Audit Configuration (v1)", kind Event. What Kubernetes has no field for is in annotations.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from libs.common.access.principal import Principal
from libs.common.audit.bodies import mask_credentials
from libs.common.audit.chain import API_VERSION, RECORD, render
from libs.common.audit.policy import Decision
from libs.common.audit.request import RequestInfo
from libs.common.resources.audit import Stage

PREFIX = "audit.herdsman.dev/"
_TOKEN = re.compile(r"\b(hmr?)_([A-Za-z0-9]+)_[^/.?&]+")
_KEPT_PARAMETERS = frozenset({
    "allowWatchBookmarks", "container", "continue", "dryRun", "fieldManager", "fieldSelector", "fieldValidation", "follow", "force",
    "gracePeriodSeconds", "includeObject", "labelSelector", "limit", "limitBytes", "orphanDependents", "path", "ports", "pretty",
    "previous", "propagationPolicy", "resourceVersion", "resourceVersionMatch", "sendInitialEvents", "since", "sinceSeconds", "sinceTime",
    "stderr", "stdin", "stdout", "tailLines", "timeout", "timeoutSeconds", "timestamps", "tty", "until", "user", "verb", "watch",
    "account", "cluster", "resource", "denied",
})  # fmt: skip
_MAX_URI = 2048
_MAX_TEXT = 1024
STATUS_REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed", 408: "Timeout", 409: "Conflict",
    410: "Expired", 413: "RequestEntityTooLarge", 422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 502: "InternalError",
    503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip


class Renderable(Protocol):
    """The facts of one event, whole."""

    def render(self, chain: str) -> bytes:
        """Its line in this chain."""
        ...


class Recordable(Protocol):
    """What the call path puts into the queue: cheap to make there, turned into facts beside the loop."""

    bodies: Any
    """An object with `.render() -> dict` (requestObject, responseObject, note) and `.release()`, or None."""

    @property
    def weight(self) -> int:
        """About how many bytes of memory it holds while it waits."""
        ...

    def to_event(self) -> Renderable: ...


class RawEvent:
    """The facts of an event. `number` is the call's in its process; times are seconds since 1970."""

    __slots__ = (
        "agent", "at", "bodies", "bytes_in", "bytes_out", "cluster", "cluster_uid", "decision", "error", "groups", "impersonated", "info",
        "number", "peer", "principal", "reason", "received", "refused", "session", "stage", "status", "target",
    )  # fmt: skip

    def __init__(
        self, stage: Stage, number: int, received: float, at: float, info: RequestInfo, target: bytes, peer: str, agent: bytes,
        principal: Principal | None, groups: frozenset[str], cluster: str, cluster_uid: str, decision: Decision, status: int,
    ) -> None:  # fmt: skip
        self.stage = stage
        self.number = number
        self.received = received
        self.at = at
        self.info = info
        self.target = target
        self.peer = peer
        self.agent = agent
        self.principal = principal
        self.groups = groups
        self.cluster = cluster
        self.cluster_uid = cluster_uid
        self.decision = decision
        self.status = status
        self.refused = False
        """The hub itself did not let it through."""
        self.error = ""
        self.reason = ""
        self.bytes_in = 0
        self.bytes_out = 0
        self.impersonated: dict[str, Any] | None = None
        self.bodies: Any = None
        """As in `Recordable`."""
        self.session = ""
        """Id of the session's recording, if there is one."""

    @property
    def weight(self) -> int:
        return len(self.target) + len(self.agent) + len(self.error)

    def to_event(self) -> RawEvent:
        return self

    def render(self, chain: str) -> bytes:
        return render_event(self, chain)


@dataclass(slots=True)
class _Clock:
    """The text of a whole second, remembered: thousands of events share it."""

    second: int = -1
    text: str = ""


_clock = _Clock()


def format_micro(moment: float) -> str:
    """RFC 3339 with microseconds, as `metav1.MicroTime`."""
    second = int(moment)
    if second != _clock.second:
        _clock.text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        _clock.second = second
    return f"{_clock.text}{int((moment - second) * 1_000_000):06d}Z"


def audit_id(chain: str, number: int) -> str:
    """In the form of a UUID: all stages of a call share it. The chain's own uuid4 makes the first part, the call's number the last."""
    return f"{chain[:23]}-{number:012x}"


def render_event(raw: RawEvent, chain: str) -> bytes:
    """One line."""
    info, principal = raw.info, raw.principal
    annotations = {
        PREFIX + "decision": "forbid" if raw.refused else "allow",
        PREFIX + "policy": raw.decision.policy,
        PREFIX + "bytesIn": str(raw.bytes_in),
        PREFIX + "bytesOut": str(raw.bytes_out),
        PREFIX + "durationMs": f"{max(0.0, raw.at - raw.received) * 1000:.2f}",
    }
    if raw.cluster:
        annotations[PREFIX + "cluster"] = raw.cluster
        annotations[PREFIX + "clusterUid"] = raw.cluster_uid
    if raw.error:
        annotations[PREFIX + "reason"] = mask_credentials(raw.error[:_MAX_TEXT])
    if raw.session:
        annotations[PREFIX + "recording"] = raw.session
    event: dict[str, Any] = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": raw.decision.level, "auditID": audit_id(chain, raw.number),
        "stage": raw.stage, "requestURI": mask_uri(raw.target), "verb": info.verb, "user": _user(principal, raw.groups),
        "sourceIPs": [raw.peer], "userAgent": mask_credentials(raw.agent[:256].decode("utf-8", "replace")),
    }  # fmt: skip
    if principal is not None and principal.token:
        annotations[PREFIX + "token"] = principal.token
    if raw.impersonated is not None:
        event["impersonatedUser"] = raw.impersonated
    if info.resource:
        reference = {
            "resource": info.resource, "namespace": info.namespace, "name": info.name, "apiGroup": info.api_group,
            "apiVersion": info.api_version, "subresource": info.subresource,
        }  # fmt: skip
        event["objectRef"] = {key: mask_credentials(value) for key, value in reference.items() if value}
    event["responseStatus"] = _status(raw)
    if raw.bodies is not None:
        shown = raw.bodies.render()
        for name in ("requestObject", "responseObject"):
            if shown.get(name) is not None:
                event[name] = shown[name]
        if shown.get("note"):
            annotations[PREFIX + "bodies"] = shown["note"]
    event["requestReceivedTimestamp"] = format_micro(raw.received)
    event["stageTimestamp"] = format_micro(raw.at)
    event["annotations"] = annotations
    line = render(event)
    if len(line) > _MAX_LINE and raw.bodies is not None:
        # Escapes can make a body many times longer than it was.
        event.pop("requestObject", None)
        event.pop("responseObject", None)
        annotations[PREFIX + "bodies"] = "left out: too large when written"
        line = render(event)
    return line


_MAX_LINE = 384 * 1024


def render_record(kind: str, at: float, **facts: Any) -> bytes:
    """A line about the chain itself: start, end, gap, alive."""
    return render({"kind": RECORD, "apiVersion": API_VERSION, "type": kind, "at": format_micro(at), **facts})


def mask_uri(target: bytes) -> str:
    """The path with the tokens in it masked, and of the query the parameters that Kubernetes and the hub know. Of a command only
    the program is shown: its arguments are where people put passwords."""
    path, mark, query = target.partition(b"?")
    text = path.decode("latin-1")
    plain = unquote(text) if "%" in text else text
    if "hm" in plain and _TOKEN.search(plain):
        text = _TOKEN.sub(r"\1_\2_***", plain)
    if mark and query:
        text = f"{text}?{_mask_query(query.decode('latin-1'))}"
    return text[:_MAX_URI]


def _mask_query(query: str) -> str:
    shown, commands = [], 0
    for pair in query[: _MAX_URI * 4].split("&"):
        name, equals, value = pair.partition("=")
        if name == "command":
            commands += 1
        if equals and name not in _KEPT_PARAMETERS and not (name == "command" and commands == 1):
            value = "***"
        if not equals and name not in _KEPT_PARAMETERS:
            name = "***"
        if "hm" in value:
            value = _TOKEN.sub(r"\1_\2_***", value)
        shown.append(f"{name}{equals}{value}"[:512])
    return "&".join(shown)


def _user(principal: Principal | None, groups: frozenset[str]) -> dict[str, Any]:
    if principal is None:
        return {"username": "system:anonymous", "groups": ["system:unauthenticated"]}
    user: dict[str, Any] = {"username": principal.user, "uid": principal.user_uid}
    if groups or principal.group_ids:
        user["groups"] = sorted(groups) if not principal.group_ids else sorted({*groups, *principal.group_ids})
    extra = {"herdsman-principal": [principal.principal_id]}
    if principal.token:
        extra["herdsman-token"] = [principal.token]
    user["extra"] = extra
    return user


def _status(raw: RawEvent) -> dict[str, Any]:
    """As `metav1.Status`. Code 0: the call ended before an answer."""
    if raw.status < 400 and raw.status:
        return {"metadata": {}, "code": raw.status}
    status: dict[str, Any] = {"metadata": {}, "status": "Failure", "code": raw.status}
    reason = raw.reason or STATUS_REASONS.get(raw.status, "")
    if reason:
        status["reason"] = reason
    if raw.error:
        status["message"] = mask_credentials(raw.error[:_MAX_TEXT])
    return status
