"""The pure decisions of identity: who is an admin, and what may not happen to the last one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from libs.common.access.bindings import BindingIndex
from libs.common.access.emergencies import find_lacking_in_emergencies
from libs.common.access.grants import Grants
from libs.common.access.lasting import find_lacking_of_user, ids_of_user
from libs.common.access.principal import Principal
from libs.common.resources.requests import AccessPolicy

ADMIN_ROLE = "admin"


def find_admins(grants: Grants) -> set[str]:
    """Names of the enabled users who hold the global role `admin` themselves; membership of a group is not counted on."""
    return {
        name for name, fact in grants.users.items() if fact.enabled and grants.has_role(fact.principal_id, ADMIN_ROLE)
    }  # fmt: skip


def is_last_admin(grants: Grants, user: str) -> bool:
    """Whether nobody could administer the hub any more without this user."""
    return find_admins(grants) == {user}


def find_lacking_for(
    grants: Grants, principal: Principal, user: str, bindings: BindingIndex, policies: Iterable[AccessPolicy], now: datetime
) -> list[str]:  # fmt: skip
    """Rights that this user holds, or may be given in an emergency, and the caller lacks or holds for a shorter time; [] = may act on the user's credentials."""
    emergencies = find_lacking_in_emergencies(grants, principal, ids_of_user(grants, user), policies, bindings)
    return find_lacking_of_user(grants, principal, user, bindings, now) + emergencies


def why_not_issue(
    grants: Grants, principal: Principal, user: str, bindings: BindingIndex, policies: Iterable[AccessPolicy], now: datetime
) -> str:  # fmt: skip
    """Why this caller may not issue tokens for that service user, nor let others have them; empty: may."""
    if principal.is_scoped or principal.read_only:
        return "a restricted token issues none for others: sign in"
    if not grants.is_allowed(principal, "update", "users", user):
        return f'the right to update user "{user}" is missing'
    lacking = find_lacking_for(grants, principal, user, bindings, policies, now)
    if not lacking:
        return ""
    return f'user "{user}" holds rights that you lack, or hold for a shorter time: {"; ".join(lacking[:5])}'
