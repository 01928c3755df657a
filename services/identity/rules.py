"""The pure decisions of identity: who is an admin, and what may not happen to the last one."""

from __future__ import annotations

from libs.common.access.grants import Grants

ADMIN_ROLE = "admin"


def find_admins(grants: Grants) -> set[str]:
    """Names of the enabled users who hold the global role `admin` themselves; membership of a group is not counted on."""
    return {
        name for name, fact in grants.users.items() if fact.enabled and grants.has_role(fact.principal_id, ADMIN_ROLE)
    }  # fmt: skip


def is_last_admin(grants: Grants, user: str) -> bool:
    """Whether nobody could administer the hub any more without this user."""
    return find_admins(grants) == {user}
