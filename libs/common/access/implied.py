"""What everybody who is signed in may do without any binding: see their own objects, and what roles there are.

Used by `grants` alone. The right to see clusters in which one holds a role needs the snapshot and is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from libs.common.access.principal import Principal
from libs.common.access.rules import READ_VERBS
from libs.common.resources.access import PolicyRule
from libs.common.resources.meta import GROUP
from libs.common.resources.registry import BY_PLURAL, field_at
from libs.common.resources.requests import EVERYBODY

READABLE_BY_ALL = "roletemplates"
DELETABLE_BY_OWNER = "tokens"
ASKED_BY_ALL = "accessrequests"
"""Whoever is signed in asks; what becomes of it is its strategy's business."""
ASKED_BY = "accesspolicies"

IMPLIED_RULES: tuple[PolicyRule, ...] = (
    PolicyRule(
        verbs=list(READ_VERBS),
        api_groups=[GROUP],
        resources=[READABLE_BY_ALL, "clusters", "roletemplatebindings", "users", ASKED_BY],
    ),
    PolicyRule(verbs=["delete", *READ_VERBS], api_groups=[GROUP], resources=[DELETABLE_BY_OWNER]),
    PolicyRule(
        verbs=["create", "delete", "patch", "update", *READ_VERBS], api_groups=[GROUP], resources=[ASKED_BY_ALL]
    ),
)
"""As a review shows it: what is limited to the caller's own objects is listed without that limit, as lists are filtered."""


def is_own_right(verb: str, plural: str, subresource: str, *, own: bool) -> bool:
    """Whether a right needs no binding; `own` says that the object belongs to the caller."""
    if subresource:
        return False
    if plural == READABLE_BY_ALL:
        return verb in READ_VERBS
    if plural == ASKED_BY_ALL:
        return verb == "create" or (own and verb in ("delete", "patch", "update", *READ_VERBS))
    kind = BY_PLURAL.get(plural)
    if not own or kind is None or not kind.owner_path:
        return False
    return verb in READ_VERBS or (verb == "delete" and plural == DELETABLE_BY_OWNER)


def is_own(principal: Principal, plural: str, document: Mapping[str, Any]) -> bool:
    """Whether the object belongs to the caller: by the immutable id where the object has one, else by name.

    A request for access is also that of whoever decides on it, and a policy that of whoever may ask by it.
    """
    kind = BY_PLURAL[plural]
    if not kind.owner_path:
        return False
    if plural == "roletemplatebindings":
        return field_at(document, "spec.principal") in principal.principal_ids
    if plural == ASKED_BY:
        return not {EVERYBODY, *principal.principal_ids}.isdisjoint(_texts(document, kind.owner_path))
    if plural == ASKED_BY_ALL and not set(principal.principal_ids).isdisjoint(_texts(document, "status.approvers")):
        return True
    uid = field_at(document, "metadata.uid" if plural == "users" else "spec.userUid")
    return field_at(document, kind.owner_path) == principal.user and uid in (None, principal.user_uid)


def _texts(document: Mapping[str, Any], path: str) -> list[str]:
    found = field_at(document, path)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
