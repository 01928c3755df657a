"""From method and path to verb and object, as an API server reads them. Pure.

Follows the rules of Kubernetes' request info: special verbs, `namespaces` as a prefix and as a kind, list and watch for a GET without a
name, deletecollection for a DELETE without one. One more (KEP-4006): a GET that switches protocols on exec, attach, portforward or
proxy is `create`.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OF_NAMESPACES = ("status", "finalize")
_SWITCHING = ("exec", "attach", "portforward", "proxy")
_MAX_PART = 512


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """`resource` is empty for what is no resource: then `verb` is the method in lower case, and `path` alone says what was meant."""

    verb: str
    path: str
    api_group: str = ""
    api_version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


def parse_request(method: str, target: str, *, upgrade: bool = False) -> RequestInfo:
    """`target` begins behind the cluster's prefix and may have a query."""
    path, _, query = target.partition("?")
    parts = [part for part in path.split("/") if part]
    if "%" in path:
        parts = [unquote(part)[:_MAX_PART] for part in parts]
    head = parts[0] if parts else ""
    if head == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif head == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(method.lower(), path[:_MAX_PART])
    verb = _VERBS.get(method, method.lower())
    special = rest[0] in ("watch", "proxy")
    if special:
        if len(rest) < 2:
            return RequestInfo(method.lower(), path[:_MAX_PART])
        verb, rest = rest[0], rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _OF_NAMESPACES:
            rest = rest[2:]
    resource, name = rest[0], rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 and verb != "proxy" else ""
    if verb == "get" and not name:
        verb = "watch" if "watch" in query and _is_set(query, "watch") else "list"
        if "fieldSelector" in query:
            name = _selected_name(query)
    elif verb == "delete" and not name:
        verb = "deletecollection"
    if upgrade and verb == "get" and subresource in _SWITCHING:
        verb = "create"
    return RequestInfo(verb, path[:_MAX_PART], group, version, resource, subresource, namespace, name)


def is_long_running(info: RequestInfo, query: str, *, upgrade: bool) -> bool:
    """Whether the call may go on for long, so that its begin is worth an event of its own."""
    if upgrade or info.verb in ("watch", "proxy") or info.subresource in _SWITCHING:
        return True
    return info.subresource == "log" and _is_set(query, "follow")


def _is_set(query: str, name: str) -> bool:
    """As an API server reads a boolean parameter: anything but false and 0 is true."""
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key == name:
            return value.lower() not in ("false", "0")
    return False


def _selected_name(query: str) -> str:
    """The name that a field selector asks for alone."""
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key == "fieldSelector":
            for term in unquote_plus(value).split(","):
                field, equals, wanted = term.replace("==", "=").partition("=")
                if equals and field.strip() == "metadata.name":
                    return wanted.strip()[:_MAX_PART]
    return ""
