"""What of a cluster's namespaces a member of projects may see, and the request that asks the cluster for just that. Pure.

The API server does the filtering, by the label `kubernetes.io/metadata.name`: it writes that label itself whenever it reads a Namespace,
from its name, so nobody in the cluster can set it to anything else. Lists, pages, their `continue` tokens, watches and bookmarks
are then the API server's own, and nothing of a stranger's namespace ever leaves the cluster (decision 0029).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import parse_qsl, quote, urlencode

from libs.common import errors
from libs.common.access.grants import Grants
from libs.common.access.principal import Principal
from libs.common.relay.head import RequestHead
from services.auth_proxy.places import Places

NAME_LABEL = "kubernetes.io/metadata.name"
PATH = b"/api/v1/namespaces"
_ITEM = re.compile(rb"/api/v1/namespaces/([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_STREAMED = ("application/json", "application/vnd.kubernetes.protobuf")
_ANY = ("*/*", "application/*")
_EXACT = re.compile(r"(?:.*,)?\s*(?:metadata\.)?name\s*==?\s*([^,=!\\\s]+)\s*(?:,.*)?", re.DOTALL)


def concerns(head: RequestHead, target: bytes) -> str:
    """The verb, where a call is one that members of projects have answered otherwise than by the cluster's RBAC; "" = it is not.

    Only the very paths that clients write: any other spelling of them is the cluster's business, as the caller.
    """
    path = target.partition(b"?")[0]
    if path == PATH:
        if head.method == b"GET" and not head.has_body and not head.upgrade:
            return "watch" if is_watch(target) else "list"
        return "create" if head.method == b"POST" else ""
    return "get" if head.method == b"GET" and not head.has_body and not head.upgrade and name_in(target) else ""


def name_in(target: bytes) -> str:
    """The namespace in the path, "" for the collection."""
    found = _ITEM.fullmatch(target.partition(b"?")[0])
    return found[1].decode("ascii") if found and not is_watch(target) else ""


def find_names(
    grants: Grants, places: Places, principal: Principal, cluster: str, cluster_uid: str, verb: str
) -> frozenset[str] | None:
    """The namespaces of the caller's projects in the cluster on which a role in the project gives the verb. None: no role gives it on any."""
    found: set[str] = set()
    may = False
    for project, roles in grants.project_roles(principal, cluster, cluster_uid).items():
        here = places.find(project, grants.projects[project].uid, cluster, cluster_uid)
        for role in roles:
            names = role.rule_set.names(verb, "", "namespaces")
            if names is None or names:
                may = True
                found |= here if names is None else here & names
    return frozenset(found) if may else None


def narrow(target: bytes, names: Collection[str]) -> bytes:
    """The same request, for no namespaces but these. Raises BadRequest for a query that two readers could read differently.

    The client's own selector comes behind ours and can only narrow it further: a selector has no "or", and one that does not parse is refused
    by the API server as a whole.
    """
    pairs = parse_query(target)
    given = dict(pairs)
    exact = _EXACT.fullmatch(given.get("fieldSelector", ""))
    if exact is not None:
        # One is asked for by its name: then so short a question will do, however many there are.
        names = [exact[1]] if exact[1] in names else []
    selector = f"{NAME_LABEL} in ({','.join(sorted(names))})"
    if own := given.get("labelSelector", ""):
        selector += f",{own}"
    # Whether an event is whole is told by the end of its line.
    dropped = ("labelSelector", "pretty") if is_watch(target) else ("labelSelector",)
    query = [("labelSelector", selector), *((key, value) for key, value in pairs if key not in dropped)]
    return PATH + b"?" + urlencode(query, quote_via=quote, safe="(),/=!").encode("ascii")


def parse_query(target: bytes) -> list[tuple[str, str]]:
    """The query's parameters, each once."""
    query = target.partition(b"?")[2]
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError as exc:
        raise errors.BadRequest("the query can't be read: write each parameter as name=value") from exc
    if len({key for key, _ in pairs}) < len(pairs):
        raise errors.BadRequest("a parameter stands more than once in the query: write each of them once")
    if _BAD_ESCAPE.search(query) is not None:
        raise errors.BadRequest("the query holds a % that begins no escape: write it as %25")
    if ";" in query.decode("ascii"):
        raise errors.BadRequest("the query holds a semicolon: write it as %3B")
    return pairs


def is_watch(target: bytes) -> bool:
    """Whether an API server answers with a stream: it takes any spelling of true, and an empty value for it, too."""
    for key, value in parse_qsl(target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True):
        if key == "watch":
            return value.lower() not in ("false", "0")
    return False


def narrow_accept(accept: str, *, watch: bool) -> str:
    """Of what the client takes, what a watch is followed in. Raises NotAcceptable when nothing is left; lists may be anything."""
    if not watch or not accept.strip():
        return accept
    kept = []
    for clause in accept.split(","):
        media, _, parameters = clause.strip().partition(";")
        media = media.strip().lower()
        if media in _ANY:
            media = _STREAMED[0]
        if media in _STREAMED:
            kept.append(f"{media};{parameters}" if parameters else media)
    if not kept:
        raise errors.NotAcceptable(f"namespaces of projects are watched as {' or '.join(_STREAMED)} only")
    return ",".join(kept)
