"""What a provider pushed of an account, and what that means for the account. Pure; `scim` writes it, `accounts` asks at every sign-in and refresh."""

from __future__ import annotations

from libs.common.resources.identity import PushedAccountPrivate, User
from libs.common.resources.providers import IdentityProvider, LinkedIdentity

DEACTIVATED = "the provider deactivated the account"


def is_pushing(provider: IdentityProvider) -> bool:
    """Whether what the provider pushes counts."""
    return provider.spec.oidc is not None and provider.spec.oidc.scim


def settle(pushed: PushedAccountPrivate, seen: LinkedIdentity) -> LinkedIdentity:
    """The account as it counts: in the groups that were pushed, and gone while it is inactive."""
    groups = sorted(set(pushed.groups.values())) if pushed.active else []
    return seen.model_copy(update={"groups": groups, "truncated": "", "gone": "" if pushed.active else DEACTIVATED})


def as_pushed(user: User, provider: IdentityProvider, seen: LinkedIdentity) -> LinkedIdentity:
    """What a sign-in or a refresh saw of an account of `user`, as it counts. A copy."""
    pushed = user.private.pushed.get(provider.name)
    if pushed is None or not is_pushing(provider) or seen.principal_id.split(":", 2)[2] != pushed.external_id:
        return seen.model_copy()
    return settle(pushed, seen)
