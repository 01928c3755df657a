"""The identity of a caller in one cluster, as the bytes of its Impersonate-* header lines. Pure.

Every user and group name carries the prefix `herdsman:`, so that nobody becomes a cluster's own `admin` by being called so. The
agent checks the same on its side (`libs.common.relay.guard`). Kubernetes page: "User impersonation".
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from urllib.parse import quote

from libs.common import errors
from libs.common.access.principal import USER_PREFIX, Principal

EXTRA_PRINCIPAL = "herdsman-principal"
EXTRA_TOKEN = "herdsman-token"  # noqa: S105 - a header's name
_VISIBLE = string.punctuation.replace("%", "")


@dataclass(frozen=True, slots=True)
class Block:
    """`lines` each end with CRLF and begin with Impersonate-User; `groups` is empty for a caller without business there."""

    lines: bytes
    groups: frozenset[str]
    cluster_uid: str


def render(principal: Principal, groups: tuple[str, ...], cluster_uid: str) -> Block:
    """The block for these groups. Raises Internal for a group that is not the hub's."""
    lines = [
        f"Impersonate-User: {USER_PREFIX}{_encode(principal.user)}",
        f"Impersonate-Uid: {_encode(principal.user_uid)}",
    ]
    for group in sorted(set(groups)):
        if not group.startswith(USER_PREFIX):
            raise errors.Internal("a group that is not the hub's was about to be impersonated: it was stopped")
        lines.append(f"Impersonate-Group: {_encode(group)}")
    lines.append(f"Impersonate-Extra-{EXTRA_PRINCIPAL}: {_encode(principal.principal_id)}")
    if principal.token:
        lines.append(f"Impersonate-Extra-{EXTRA_TOKEN}: {_encode(principal.token)}")
    return Block("".join(f"{line}\r\n" for line in lines).encode("ascii"), frozenset(groups), cluster_uid)


def _encode(text: str) -> str:
    """Visible ASCII as it is, everything else percent-encoded: no value can end its line."""
    return quote(text, safe=_VISIBLE)
