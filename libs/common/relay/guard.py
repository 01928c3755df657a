"""The agent's last check of every request from the hub, before the service account's token is added.

So a fault in the hub is not cluster-admin everywhere: who is impersonated must be named, once, and must be one of the hub's own
names, which no RBAC of a cluster knows unless the hub's desired set bound it. `dial` calls `check`; what is refused here is 403.
"""

from __future__ import annotations

from libs.common import errors
from libs.common.relay.head import RequestHead

PREFIX = b"herdsman:"
_USER, _GROUP, _UID, _EXTRA = b"impersonate-user", b"impersonate-group", b"impersonate-uid", b"impersonate-extra-"
_AUTHENTICATED = b"system:authenticated"
_REFUSED_NAMES = frozenset({b"authorization", b"proxy-authorization", b"cookie"})


def check(head: RequestHead) -> list[bytes]:
    """The identity lines of the request, as they came. Raises Denied when they are not exactly what the hub may say."""
    users = 0
    uids = 0
    lines: list[bytes] = []
    for lower, value, line in head.fields:
        if lower.startswith(b"impersonate-"):
            if lower == _USER:
                users += 1
                _check_name(value, "user")
            elif lower == _GROUP:
                if value != _AUTHENTICATED:
                    _check_name(value, "group")
            elif lower == _UID:
                uids += 1
            elif not lower.startswith(_EXTRA) or len(lower) == len(_EXTRA):
                raise errors.Denied("the agent refuses the request: it holds an impersonation header that is not known")
            lines.append(line)
        elif lower in _REFUSED_NAMES or lower.startswith(b"x-remote-"):
            raise errors.Denied("the agent refuses the request: the hub may not send credentials into a cluster")
    if users != 1:
        raise errors.Denied("the agent refuses the request: Impersonate-User must be there exactly once")
    if uids > 1:
        raise errors.Denied("the agent refuses the request: Impersonate-Uid is there more than once")
    return lines


def _check_name(value: bytes, what: str) -> None:
    if not value.startswith(PREFIX) or len(value) == len(PREFIX):
        raise errors.Denied(
            f"the agent refuses the request: a {what} to impersonate does not begin with {PREFIX.decode()}"
        )
