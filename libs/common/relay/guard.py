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


def check(head: RequestHead) -> tuple[list[bytes], impersonation.Wish | None]:
    """The caller's identity lines as they came, the user first, and the caller's wish.

    Raises Denied when the identity is not exactly what the hub may say, BadRequest for a malformed wish.
    """
    user = b""
    uids = 0
    lines: list[bytes] = []
    wishes = False
    for lower, value, line in head.fields:
        if lower.startswith(b"impersonate-"):
            if lower.startswith(_WISH):
                wishes = True
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
    lines.insert(0, b"Impersonate-User: " + user)
    return lines, impersonation.parse_wish(head, impersonation.FROM_HUB) if wishes else None


def _check_name(value: bytes, what: str) -> None:
    if not value.startswith(PREFIX) or len(value) == len(PREFIX):
        raise _refusal(f"a {what} to impersonate does not begin with {PREFIX.decode()}")


def _refusal(why: str) -> errors.Denied:
    return errors.Denied(f"the agent refuses the request: {why}")
