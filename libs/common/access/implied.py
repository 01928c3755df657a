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

READABLE_BY_ALL = "roletemplates"
DELETABLE_BY_OWNER = "tokens"

IMPLIED_RULES: tuple[PolicyRule, ...] = (
    PolicyRule(
        verbs=list(READ_VERBS),
        api_groups=[GROUP],
        resources=[READABLE_BY_ALL, "clusters", "roletemplatebindings", "users"],
    ),
    PolicyRule(verbs=["delete", *READ_VERBS], api_groups=[GROUP], resources=[DELETABLE_BY_OWNER]),
)
"""As a review shows it: what is limited to the caller's own objects is listed without that limit, as lists are filtered."""


def is_own_right(verb: str, plural: str, subresource: str, *, own: bool) -> bool:
    """Whether a right needs no binding; `own` says that the object belongs to the caller."""
    if subresource:
        return False
    if plural == READABLE_BY_ALL:
        return verb in READ_VERBS
    kind = BY_PLURAL.get(plural)
    if not own or kind is None or not kind.owner_path:
        return False
    return verb in READ_VERBS or (verb == "delete" and plural == DELETABLE_BY_OWNER)


def is_own(principal: Principal, plural: str, document: Mapping[str, Any]) -> bool:
    """Whether the object belongs to the caller: by the immutable id where the object has one, else by name."""
    kind = BY_PLURAL[plural]
    if not kind.owner_path:
        return False
    if plural == "roletemplatebindings":
        return field_at(document, "spec.principal") in principal.principal_ids
    uid = field_at(document, "metadata.uid" if plural == "users" else "spec.userUid")
    return field_at(document, kind.owner_path) == principal.user and uid in (None, principal.user_uid)
