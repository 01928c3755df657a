"""What a caller may do with one object: the grants plus what everybody may do with what is their own.

The one question that the writer, lists and watches all ask. `Grants` is what this package needs of
`libs.common.access.grants.Grants`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from libs.common import errors
from libs.common.access.principal import Principal
from libs.common.resources.registry import ResourceType, field_at

READ_VERBS = frozenset({"get", "list", "watch"})


class Grants(Protocol):
    """An immutable snapshot of who may do what."""

    def is_allowed(
        self, principal: Principal, verb: str, plural: str, name: str = "", cluster: str = "", subresource: str = ""
    ) -> bool: ...

    def visible_clusters(self, principal: Principal) -> set[str] | None: ...

    def covers(self, principal: Principal, role: Any, scope: Any) -> list[str]: ...


class GrantsSource(Protocol):
    """Where the newest snapshot is: `libs.common.access.live.LiveGrants`."""

    @property
    def current(self) -> Grants: ...


def check_caller(principal: Principal, verb: str) -> None:
    """What the token itself forbids, whatever its user may. Raises Denied."""
    if principal.must_change_password:
        raise errors.Denied("the password must be changed first: run `herdsman password`, then sign in again")
    if principal.clusters:
        raise errors.Denied(
            "this token is good for clusters only, not for the hub: sign in, or make a token without a list of clusters"
        )
    if principal.read_only and verb not in READ_VERBS:
        raise errors.Denied(f"this token is read-only and cannot {verb}: use another token")


def cluster_of(rtype: ResourceType, document: Mapping[str, Any]) -> str:
    """Name of the cluster that an object belongs to, "" for none."""
    if not rtype.cluster_path:
        return ""
    value = field_at(document, rtype.cluster_path)
    return value if isinstance(value, str) else ""


def is_own(principal: Principal, rtype: ResourceType, document: Mapping[str, Any]) -> bool:
    """Whether the object is the caller's own: by name, and by uid where the object holds it."""
    if not rtype.owner_path or field_at(document, rtype.owner_path) != principal.user:
        return False
    uid = field_at(document, "metadata.uid" if rtype.owner_path == "metadata.name" else "spec.userUid")
    return uid is None or uid == principal.user_uid


def is_allowed(
    grants: Grants,
    principal: Principal,
    verb: str,
    rtype: ResourceType,
    document: Mapping[str, Any],
    subresource: str = "",
) -> bool:
    """Whether the caller may do this with this object."""
    name = "" if verb == "create" else str(field_at(document, "metadata.name") or "")
    if grants.is_allowed(principal, verb, rtype.plural, name, cluster_of(rtype, document), subresource):
        return True
    own_verb = verb in READ_VERBS or (verb == "delete" and rtype.plural == "tokens")
    return own_verb and not subresource and is_own(principal, rtype, document) and is_living(grants, principal)


def is_living(grants: Grants, principal: Principal) -> bool:
    """Whether the caller is an enabled user: grants answer that with the right that every such user has."""
    return grants.is_allowed(principal, "get", "users", principal.user)
