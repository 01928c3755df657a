"""What a caller holds long enough to give it on. Pure; for bindings, and for members of groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from libs.common.access.grants import Grants
from libs.common.access.held import held_by, is_counting
from libs.common.access.principal import Principal
from libs.common.resources.access import RoleTemplateBinding

FOREVER = datetime.max.replace(tzinfo=UTC)


def grants_until(
    grants: Grants, principal: Principal, bindings: Iterable[RoleTemplateBinding], until: datetime | None
) -> Grants:
    """The snapshot with only what the caller still holds just before `until` (None = for good).

    Otherwise who holds a role for an hour could give it on, or to themselves, for ever.
    """
    moment = (until or FOREVER) - timedelta(microseconds=1)
    own: dict[str, list[RoleTemplateBinding]] = {i: [] for i in principal.principal_ids}
    for binding in bindings:
        if binding.spec.principal in own:
            own[binding.spec.principal].append(binding)
    return replace(grants, held={i: held_by(group, moment) for i, group in own.items()}, _merged={})


def find_lacking_of(
    grants: Grants, giver: Principal, principal_id: str, bindings: Iterable[RoleTemplateBinding], now: datetime
) -> list[str]:
    """The rights of whoever acts under `principal_id` that `giver` lacks, or holds for a shorter time; [] = may let somebody in."""
    bindings = list(bindings)
    lacking: set[str] = set()
    lasting: dict[datetime | None, Grants] = {}
    for binding in bindings:
        scope, until = binding.spec.scope, binding.spec.not_after
        role = grants.roles.get(binding.spec.role)
        if binding.spec.principal != principal_id or role is None or not is_counting(binding, now):
            continue
        if scope.cluster and scope.cluster_uid and grants.clusters.get(scope.cluster) != scope.cluster_uid:
            continue  # an earlier cluster of that name: it never counts again
        if until not in lasting:
            lasting[until] = grants_until(grants, giver, bindings, until)
        lacking.update(lasting[until].covers(giver, role, scope))
    return sorted(lacking)
