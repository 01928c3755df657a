"""The pure decisions of identity: who is an admin, and what may not happen to the last one."""

from __future__ import annotations

from datetime import datetime

from libs.common.access.bindings import BindingIndex
from libs.common.access.grants import Grants
from libs.common.access.lasting import find_lacking_of_user
from libs.common.access.principal import Principal

ADMIN_ROLE = "admin"


def find_admins(grants: Grants) -> set[str]:
    """Names of the enabled users who hold the global role `admin` themselves; membership of a group is not counted on."""
    return {
        name for name, fact in grants.users.items() if fact.enabled and grants.has_role(fact.principal_id, ADMIN_ROLE)
    }  # fmt: skip


def is_last_admin(grants: Grants, user: str) -> bool:
    """Whether nobody could administer the hub any more without this user."""
    return find_admins(grants) == {user}


def why_not_issue(grants: Grants, principal: Principal, user: str, bindings: BindingIndex, now: datetime) -> str:
    """Why this caller may not issue tokens for that service user, nor let others have them; empty: may."""
    if principal.is_scoped or principal.read_only:
        return "a restricted token issues none for others: sign in"
    if not grants.is_allowed(principal, "update", "users", user):
        return f'the right to update user "{user}" is missing'
    lacking = find_lacking_of_user(grants, principal, user, bindings, now)
    if not lacking:
        return ""
    return f'user "{user}" holds rights that you lack, or hold for a shorter time: {"; ".join(lacking[:5])}'
