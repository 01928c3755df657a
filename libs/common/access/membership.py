"""Under which principal ids a User acts: its own, those of its accounts elsewhere, and of their groups. Pure.

The front door asks at each new caller; what it answers changes with the user, with the providers, and with time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.common.access.principal import local_user_principal
from libs.common.resources.identity import User
from libs.common.resources.providers import LOCAL, IdentityProvider, LinkedIdentity

ProviderOf = Callable[[str], IdentityProvider | None]


@dataclass(frozen=True, slots=True)
class Membership:
    """`group_ids` sorted; true until `until`, None = until something changes."""

    principal_id: str
    group_ids: tuple[str, ...] = ()
    until: datetime | None = None


def is_counting(identity: LinkedIdentity, provider: IdentityProvider | None, now: datetime) -> bool:
    """Whether an account counts now: its provider is there and enabled, and it was seen there, in use, recently enough."""
    return (
        provider is not None
        and not identity.gone
        and provider.spec.enabled
        and not provider.deleting
        and now < identity.refreshed_at + timedelta(seconds=provider.spec.max_age_seconds)
    )


def membership_of(user: User, provider_of: ProviderOf, now: datetime, local_groups: Iterable[str] = ()) -> Membership:
    """The ids of `user` at this moment. `local_groups`: principal ids of the hub's own groups that the user is in."""
    ids = set(local_groups)
    ends = []
    for identity in user.status.identities:
        provider = provider_of(identity.provider)
        if provider is not None and is_counting(identity, provider, now):
            ids |= {identity.principal_id, *identity.groups}
            ends.append(identity.refreshed_at + timedelta(seconds=provider.spec.max_age_seconds))
    return Membership(
        user.status.principal_id or local_user_principal(user.uid), tuple(sorted(ids)), min(ends, default=None)
    )


def may_use(provider_name: str, user: User, provider_of: ProviderOf, now: datetime) -> bool:
    """Whether a token that came from a sign-in at this provider is still good: "" = it depends on none."""
    if not provider_name:
        return True
    provider = provider_of(provider_name)
    if provider is None or not provider.spec.enabled or provider.deleting:
        # A hub that never wrote down its own provider has it.
        return provider_name == LOCAL and provider is None
    if provider_name == LOCAL:
        return True
    return any(i.provider == provider_name and is_counting(i, provider, now) for i in user.status.identities)
