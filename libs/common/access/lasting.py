"""What a caller holds long enough to give it on. Pure; for bindings, and for members of groups."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from libs.common.access.bindings import AnyBinding, BindingIndex
from libs.common.access.grants import Grants
from libs.common.access.held import held_by
from libs.common.access.principal import Principal

FOREVER = datetime.max.replace(tzinfo=UTC)
Bindings = BindingIndex | Iterable[AnyBinding]
"""An index where there is one: a list is looked through from its begin to its end."""


def grants_until(grants: Grants, principal: Principal, bindings: Bindings, until: datetime | None) -> Grants:
    """The snapshot with only what the caller still holds just before `until` (None = for good).

    Otherwise who holds a role for an hour could give it on, or to themselves, for ever.
    """
    index = _indexed(bindings)
    moment = (until or FOREVER) - timedelta(microseconds=1)
    return grants.with_held({i: held_by(index.of_principal(i), moment) for i in principal.principal_ids})


def find_lacking_of(
    grants: Grants, giver: Principal, principal_id: str, bindings: Bindings, now: datetime
) -> list[str]:
    """The rights of whoever acts under `principal_id` that `giver` lacks, or holds for a shorter time; [] = may let somebody in."""
    index = _indexed(bindings)
    lacking: set[str] = set()
    lasting: dict[datetime | None, Grants] = {}
    for binding in index.of_principal(principal_id):
        until, role = binding.not_after, grants.roles.get(binding.role)
        if role is None or not binding.is_counting(now) or not binding.fits(role.scope):
            continue
        if binding.cluster and binding.cluster_uid and grants.clusters.get(binding.cluster) != binding.cluster_uid:
            continue  # an earlier cluster of that name: it never counts again
        project = grants.projects.get(binding.project)
        if project is not None and not project.is_meant(binding.project_uid, binding.bound_at):
            continue
        if until not in lasting:
            lasting[until] = grants_until(grants, giver, index, until)
        lacking.update(lasting[until].covers(giver, role, binding.scope))
    return sorted(lacking)


def find_lacking_of_user(grants: Grants, giver: Principal, user: str, bindings: Bindings, now: datetime) -> list[str]:
    """The same of all that a user acts under; [] = may act on that person's credentials.

    Who is an administrator for an hour must not come to be one for good by another one's password.
    """
    return sorted(
        {text for i in ids_of_user(grants, user) for text in find_lacking_of(grants, giver, i, bindings, now)}
    )


def ids_of_user(grants: Grants, user: str) -> set[str]:
    """All that the user of this name may act under, as the hub last saw it; also of one who is disabled."""
    fact = grants.users.get(user)
    return {fact.principal_id, *fact.group_ids, *grants.local_groups.get(fact.uid, ())} if fact is not None else set()


def _indexed(bindings: Bindings) -> BindingIndex:
    return bindings if isinstance(bindings, BindingIndex) else BindingIndex(bindings)
