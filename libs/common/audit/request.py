"""From method and path to verb and object, as an API server reads them. Pure.

Follows the rules of Kubernetes' request info: special verbs, `namespaces` as a prefix and as a kind, list and watch for a GET without a
name, deletecollection for a DELETE without one. One more (KEP-4006): a GET that switches protocols on exec, attach, portforward or
proxy is `create`.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OF_NAMESPACES = ("status", "finalize")
_SWITCHING = ("exec", "attach", "portforward", "proxy")
_MAX_PART = 512
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# The usual form in one go; whatever has a special verb, an escape, an empty part or a namespace as its object takes the long way below.
_USUAL = re.compile(
    r"/(?:api|apis/([^/%]{1,253}))/([^/%]{1,63})(?:/namespaces/([^/%]{1,253}))?"
    r"/(?!(?:watch|proxy|namespaces|status|finalize)(?:/|$))([^/%]{1,253})(?:/([^/%]{1,253})(?:/([^/%]{1,63})(?:/.*)?)?)?"
)


class RequestInfo(NamedTuple):
    """`resource` is empty for what is no resource: then `verb` is the method in lower case, and `path` alone says what was meant.

    A tuple, because one is made for every call.
    """

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
    usual = _USUAL.fullmatch(path)
    if usual is not None:
        group, version, namespace, resource, name, subresource = usual.groups("")
        verb = _VERBS.get(method) or method.lower()
    else:
        found = _read_parts(method, path)
        if isinstance(found, RequestInfo):
            return found
        verb, path, group, version, resource, subresource, namespace, name = found
    if verb == "get" and not name:
        verb = "list"
        if query:
            verb, name = "watch" if _is_set(query, "watch") else "list", _selected_name(query)
    elif verb == "delete" and not name:
        verb = "deletecollection"
    if upgrade and verb == "get" and subresource in _SWITCHING:
        verb = "create"
    return RequestInfo(verb, path[:_MAX_PART], group, version, resource, subresource, namespace, name)


def _read_parts(method: str, path: str) -> RequestInfo | tuple[str, str, str, str, str, str, str, str]:
    """The long way: a RequestInfo for what is no resource, else its fields before list, watch and deletecollection are told apart."""
    # Undone first, as an API server does: what is an escaped slash here is one between parts there.
    parts = [part[:_MAX_PART] for part in (unquote(path) if "%" in path else path).split("/") if part]
    head = parts[0] if parts else ""
    if head == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif head == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(method.lower(), path[:_MAX_PART])
    verb = _VERBS.get(method, method.lower())
    if rest[0] in ("watch", "proxy"):
        if len(rest) < 2:
            return RequestInfo(method.lower(), path[:_MAX_PART])
        verb, rest = rest[0], rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _OF_NAMESPACES:
            rest = rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 and verb != "proxy" else ""
    return verb, path, group, version, rest[0], subresource, namespace, name


def is_long_running(info: RequestInfo, query: str, *, upgrade: bool) -> bool:
    """Whether the call may go on for long, so that its begin is worth an event of its own."""
    if upgrade or info.verb == "watch":
        return True
    if info.subresource:
        return info.subresource in _SWITCHING or (info.subresource == "log" and _is_set(query, "follow"))
    return info.verb == "proxy"


def _is_set(query: str, name: str) -> bool:
    """As an API server reads a boolean parameter: anything but false and 0 is true."""
    value = _find_value(query, name)
    return value is not None and value.lower() not in ("false", "0")


def _selected_name(query: str) -> str:
    """The name that a field selector asks for alone."""
    for term in (_find_value(query, "fieldSelector") or "").split(","):
        field, equals, wanted = term.replace("==", "=").partition("=")
        if equals and field.strip() == "metadata.name":
            return wanted.strip()[:_MAX_PART]
    return ""


def _find_value(query: str, name: str) -> str | None:
    """The first value of a parameter. Go undoes escapes in names, too, and takes a pair with a bad one, or with a semicolon, for none.

    Who reads otherwise writes a list down as a watch, and a policy that leaves watches out leaves it out.
    """
    if name not in query and "%" not in query:
        return None
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key != name and "%" not in key:
            continue
        if ";" not in pair and _BAD_ESCAPE.search(pair) is None and unquote_plus(key) == name:
            return unquote_plus(value)
    return None
