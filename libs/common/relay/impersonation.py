"""A caller's wish to act as somebody else in a cluster (`kubectl --as`): what it may name, and what the cluster is asked about it. Pure.

The hub parses the wish from the client's `Impersonate-*`, sends it on beside the caller's own identity as `Impersonate-As-*`, and the
side that holds the API server's credential (`terminal`) has every attribute allowed by that API server before it writes the final head.
The names begin with `Impersonate-` so that an agent which is too old to know them refuses the call instead of making it as the caller.
Kubernetes page: "User impersonation".
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from libs.common import errors
from libs.common.relay.head import RequestHead

FROM_CLIENT = b"Impersonate-"
FROM_HUB = b"Impersonate-As-"
OWN_EXTRA = "herdsman-"
"""Extras of this prefix say who really calls: nobody may wish for one."""
EXTRA_IMPERSONATOR = "herdsman-impersonator"
HUB_GROUPS = "herdsman:hub:"
"""Groups in which only the hub itself ever is (`access.principal` names them): with them it asks for more than its caller may see."""
RESERVED_NAMESPACES = frozenset({"kube-system", "herdsman-system"})
"""Their service accounts hold the cluster's own rights, and the agent's right to be anybody."""
MAX_ATTRIBUTES = 32
"""Each costs a question to the API server. No person needs as many."""

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_SERVICE_ACCOUNT = re.compile(rf"system:serviceaccount:({_LABEL}):([a-z0-9](?:[-.a-z0-9]{{0,251}}[a-z0-9])?)", re.ASCII)
_SERVICE_ACCOUNTS = re.compile(rf"system:serviceaccounts:({_LABEL})", re.ASCII)
_GROUPS_OF_ALL = frozenset({"system:authenticated", "system:unauthenticated", "system:serviceaccounts"})
_EXTRA_KEY = re.compile(r"[-a-z0-9._/~]{1,253}", re.ASCII)
_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_IN_HEADER = re.compile(r"[^-a-z0-9.]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing to ask: may the caller `impersonate` this? The resources are those of kube-apiserver's own filter."""

    resource: str
    name: str
    group: str = ""
    subresource: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """Whom the caller wishes to be. `extras` are pairs; a key that has several values is there several times."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extras: tuple[tuple[str, str], ...] = ()


def parse_wish(head: RequestHead, prefix: bytes = FROM_CLIENT) -> Wish | None:
    """The wish in the head's fields of that prefix; None when it holds none.

    Raises BadRequest where kube-apiserver does (groups, uid or extras without a user), and for what it would read in a way
    that its caller can't have meant: two users, empty values, names of headers that are not known.
    """
    if not head.claims:
        return None
    lower_prefix = prefix.lower()
    users: list[str] = []
    groups: list[str] = []
    uids: list[str] = []
    extras: list[tuple[str, str]] = []
    for lower, value, _ in head.claims:
        if not lower.startswith(lower_prefix):
            continue
        name = lower[len(lower_prefix) :]
        if name == b"user":
            users.append(_text(value, "Impersonate-User"))
        elif name == b"group":
            groups.append(_text(value, "Impersonate-Group"))
        elif name == b"uid":
            uids.append(_text(value, "Impersonate-Uid"))
        elif name.startswith(b"extra-"):
            extras.append((_parse_key(name[len(b"extra-") :]), _text(value, "Impersonate-Extra-…")))
        else:
            raise errors.BadRequest(
                "the only headers to impersonate with are Impersonate-User, -Group, -Uid and -Extra-KEY"
            )
    if not (users or groups or uids or extras):
        return None
    if not users:
        raise errors.BadRequest("groups, a uid or extras to impersonate need a user to impersonate: add --as")
    if len(users) > 1 or len(uids) > 1:
        raise errors.BadRequest("one user, and at most one uid, can be impersonated at a time")
    if 1 + len(groups) + len(uids) + len(extras) > MAX_ATTRIBUTES:
        raise errors.BadRequest(f"no more than {MAX_ATTRIBUTES} attributes can be impersonated at a time")
    return Wish(users[0], tuple(groups), uids[0] if uids else "", tuple(extras))


def check_reserved(wish: Wish, namespaces: Set[str] = RESERVED_NAMESPACES) -> None:
    """Raises Denied for whom nobody may wish to be, whatever a cluster's rights say: its control plane, its nodes, its administrators.

    Everything that begins with `system:` is reserved but a few names that only narrow. Letter case does not help, because
    an authorizer behind a cluster may fold it.
    """
    if _is_system(wish.user):
        found = _SERVICE_ACCOUNT.fullmatch(wish.user)
        if found is None or found[1] in namespaces:
            raise _reserved("user", wish.user)
    for group in wish.groups:
        if _is_system(group) and group not in _GROUPS_OF_ALL:
            found = _SERVICE_ACCOUNTS.fullmatch(group)
            if found is None or found[1] in namespaces:
                raise _reserved("group", group)
        elif group.casefold().startswith(HUB_GROUPS):
            raise errors.Denied(f'group "{group}" is the hub\'s own: nobody may impersonate it')
    for key, _ in wish.extras:
        if key.startswith(OWN_EXTRA):
            raise errors.Denied(
                f'extras that begin with "{OWN_EXTRA}" say who really calls: nobody may impersonate one'
            )


def attributes_of(wish: Wish) -> list[Attribute]:
    """All that must be allowed, each once, in the order in which kube-apiserver asks."""
    account = _SERVICE_ACCOUNT.fullmatch(wish.user)
    found = [
        Attribute("serviceaccounts", account[2], namespace=account[1]) if account else Attribute("users", wish.user)
    ]
    if wish.uid:
        found.append(Attribute("uids", wish.uid, "authentication.k8s.io"))
    found += [Attribute("groups", group) for group in wish.groups]
    found += [Attribute("userextras", value, "authentication.k8s.io", key) for key, value in wish.extras]
    return list(dict.fromkeys(found))


def render(wish: Wish, prefix: bytes = FROM_CLIENT) -> list[bytes]:
    """The header lines of the wish, the user first."""
    lines = [prefix + b"User: " + wish.user.encode()]
    lines += [prefix + b"Group: " + group.encode() for group in wish.groups]
    if wish.uid:
        lines.append(prefix + b"Uid: " + wish.uid.encode())
    lines += [prefix + b"Extra-" + _render_key(key) + b": " + value.encode() for key, value in wish.extras]
    return lines


def render_identity(wish: Wish, caller: Sequence[bytes]) -> list[bytes]:
    """The identity lines of the final head: the wish, and in its extras who really calls. `caller`: the hub's lines, the user first."""
    lines = render(wish)
    name = caller[0].partition(b":")[2].strip(b" \t")
    lines.append(f"Impersonate-Extra-{EXTRA_IMPERSONATOR}: ".encode() + name)
    own = f"impersonate-extra-{OWN_EXTRA}".encode()
    lines += [line for line in caller if line.lower().startswith(own)]
    return lines


def _is_system(name: str) -> bool:
    return name.casefold().startswith("system:")


def _reserved(what: str, name: str) -> errors.Denied:
    return errors.Denied(
        f'{what} "{name}" is reserved for the cluster itself: nobody may impersonate it through the hub'
    )


def _text(value: bytes, header: str) -> str:
    """A value as the API server reads it: the bytes as they are, never percent-decoded."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise errors.BadRequest(f"the value of {header} is not UTF-8") from exc
    if not text:
        raise errors.BadRequest(f"the value of {header} is empty")
    return text


def _parse_key(raw: bytes) -> str:
    """An extra's key. kube-apiserver lowers the header's name and then decodes it, so an encoded letter can come out in upper case:
    such a key, and one that does not decode, would mean different things to different readers."""
    key = "" if _ESCAPE.search(raw) else unquote_to_bytes(raw).decode("utf-8", "replace")
    if _EXTRA_KEY.fullmatch(key) is None:
        raise errors.BadRequest(
            "the key of an extra to impersonate may hold lower-case letters, digits and -._~/ (percent-encoded in a header's name)"
        )
    return key


def _render_key(key: str) -> bytes:
    return _IN_HEADER.sub(lambda match: f"%{ord(match[0]):02X}", key).encode("ascii")
