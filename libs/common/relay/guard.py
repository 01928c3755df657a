"""The last check of every request from the hub, before an API server's credential is added: at the agent, or for a direct cluster at the hub.

So a fault in the hub is not cluster-admin everywhere: who calls must be named, once, and must be one of the hub's own
names, which no RBAC of a cluster knows unless the hub's desired set bound it. What a caller wishes to be instead (`impersonation`) comes
beside that, and only the API server's own answer makes it so. `terminal` calls `check`; what is refused here is 403.
"""

from __future__ import annotations

from libs.common import errors
from libs.common.relay import impersonation
from libs.common.relay.head import RequestHead

PREFIX = b"herdsman:"
_USER, _GROUP, _UID, _EXTRA = b"impersonate-user", b"impersonate-group", b"impersonate-uid", b"impersonate-extra-"
_WISH = impersonation.FROM_HUB.lower()
_AUTHENTICATED = b"system:authenticated"
_REFUSED_NAMES = frozenset({b"authorization", b"proxy-authorization", b"cookie"})


def check(head: RequestHead) -> list[bytes]:
    """The lines that say who calls, as they came, the user first; after them those of the caller's wish, for whoever is behind to read.

    Raises Denied when they are not exactly what the hub may say.
    """
    user = b""
    uids = 0
    lines: list[bytes] = []
    wishes: list[bytes] = []
    for lower, value, line in head.fields:
        if lower.startswith(b"impersonate-"):
            if lower.startswith(_WISH):
                wishes.append(line)
                continue
            if lower == _USER:
                if user:
                    raise _refusal("Impersonate-User must be there exactly once")
                _check_name(value, "user")
                user = value
                continue
            if lower == _GROUP:
                if value != _AUTHENTICATED:
                    _check_name(value, "group")
            elif lower == _UID:
                uids += 1
            elif not lower.startswith(_EXTRA) or len(lower) == len(_EXTRA):
                raise _refusal("it holds an impersonation header that is not known")
            lines.append(line)
        elif lower in _REFUSED_NAMES or lower.startswith(b"x-remote-"):
            raise _refusal("the hub may not send credentials into a cluster")
    if not user:
        raise _refusal("Impersonate-User must be there exactly once")
    if uids > 1:
        raise _refusal("Impersonate-Uid is there more than once")
    # First, and spelled as `rebuild.check_identity` wants it.
    return [b"Impersonate-User: " + user, *lines, *wishes]


def caller_of(lines: list[bytes]) -> list[bytes]:
    """Of the lines that `check` gave, those of the caller alone."""
    return [line for line in lines if not line.lower().startswith(_WISH)]


def _check_name(value: bytes, what: str) -> None:
    if not value.startswith(PREFIX) or len(value) == len(PREFIX):
        raise _refusal(f"a {what} to impersonate does not begin with {PREFIX.decode()}")


def _refusal(why: str) -> errors.Denied:
    return errors.Denied(f"the agent refuses the request: {why}")
