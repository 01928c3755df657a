"""What somebody may come to have at once by policies for emergencies. Pure; asked by whoever lets others act under a principal's id.

Such a policy gives nothing until somebody asks by it, and then without a word of anybody. So whoever makes somebody one of those who
may ask gives what it gives: by taking them into a group that it names, or by acting as one of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from libs.common.access.grants import Grants
from libs.common.access.lasting import Bindings, grants_until
from libs.common.access.principal import Principal
from libs.common.resources.access import BindingScope
from libs.common.resources.requests import AccessPolicy, AccessPolicySpec


def scopes_given(policy: AccessPolicySpec) -> list[BindingScope]:
    """Where whoever writes an emergency policy must hold its roles: a project may come to more clusters, so in every one."""
    return [
        BindingScope(cluster=scope.cluster, cluster_uid=scope.cluster_uid) if scope.cluster else BindingScope(all=True)
        for scope in policy.scopes
    ]


def find_lacking_in_emergencies(
    grants: Grants, giver: Principal, principal_ids: Iterable[str], policies: Iterable[AccessPolicy], bindings: Bindings
) -> list[str]:
    """Rights that one of these ids may be given at once, and that `giver` lacks there, or holds for a time only."""
    ids = set(principal_ids)
    asked = [p for p in policies if p.spec.break_glass and not p.deleting and not ids.isdisjoint(p.spec.requesters)]
    if not asked:
        return []
    lasting = grants_until(grants, giver, bindings, None)
    return sorted({
        text
        for policy in asked
        for scope in scopes_given(policy.spec)
        for name in policy.spec.roles
        if (role := grants.roles.get(name)) is not None
        for text in lasting.covers(giver, role, scope)
    })  # fmt: skip
