"""What `bench.grants` measures with: people, groups, clusters, projects, roles and bindings of a large hub, the same ones at each run. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from libs.common.access.principal import Principal
from libs.common.resources import codec
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.identity import User
from libs.common.resources.meta import ObjectMeta, Resource
from libs.common.resources.projects import Project
from libs.common.resources.registry import BY_MODEL
from services.authz.builtins import render_builtins

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
GROUPS_OF_A_USER = 5
TO_GROUPS = 0.3
"""The part of the bindings that is for groups of a directory; the rest is for people."""
EXPIRING = 0.1
SCOPES = (("global", 0.01), ("everywhere", 0.01), ("cluster", 0.49), ("project", 0.49))


@dataclass(frozen=True, slots=True)
class World:
    users: int = 10_000
    clusters: int = 1_000
    projects: int = 5_000
    bindings: int = 50_000
    groups: int = 500

    def scaled(self, divisor: int) -> World:
        """The same world, smaller: for a look at whether all this runs."""
        sizes = {name: max(10, getattr(self, name) // divisor) for name in ("users", "clusters", "projects", "bindings", "groups")}  # fmt: skip
        return replace(self, **sizes)


def entries(world: World) -> Iterator[tuple[str, str, bytes]]:
    """Bucket, key and stored bytes of everything."""
    for resource in _resources(world):
        kind = BY_MODEL[type(resource)]
        yield kind.bucket, kind.key(resource.name), codec.encode(resource)


def caller(number: int, world: World) -> Principal:
    """A user with some of the groups of a directory."""
    rng = random.Random(number)
    groups = [group_id(rng.randrange(world.groups)) for _ in range(GROUPS_OF_A_USER)]
    return Principal(user=f"u{number}", user_uid=f"uid-u{number}", principal_id=user_id(number), group_ids=groups)


def user_id(number: int) -> str:
    return f"local:user:uid-u{number}"


def group_id(number: int) -> str:
    return f"ldap:group:g{number}"


def binding(name: str, principal: str, role: str, scope: dict[str, Any], until: datetime | None = None) -> RoleTemplateBinding:  # fmt: skip
    spec = {"principal": principal, "role": role, "scope": scope, "notAfter": until}
    return RoleTemplateBinding.model_validate({"metadata": _meta(name), "spec": spec})


def cluster_scope(number: int) -> dict[str, Any]:
    return {"cluster": f"c{number}", "clusterUid": f"uid-c{number}"}


def _resources(world: World) -> Iterator[Resource]:
    rng = random.Random(5)
    for role in [*render_builtins(), *_custom_roles()]:
        yield role.model_copy(update={"metadata": _meta(role.name)})
    for number in range(world.users):
        yield User(metadata=_meta(f"u{number}"))
    for number in range(world.clusters):
        labels = {"env": rng.choice(("dev", "test", "prod")), "region": f"r{number % 20}"}
        yield Cluster(metadata=_meta(f"c{number}", labels))
    for number in range(world.projects):
        namespaces = [
            {"cluster": f"c{rng.randrange(world.clusters)}", "namespace": f"p{number}-{i}"}
            for i in range(rng.randint(1, 4))
        ]
        yield Project.model_validate({"metadata": _meta(f"p{number}"), "spec": {"namespaces": namespaces}})
    for number in range(world.bindings):
        yield _binding(number, world, rng)


def _binding(number: int, world: World, rng: random.Random) -> RoleTemplateBinding:
    kind = rng.choices([name for name, _ in SCOPES], [weight for _, weight in SCOPES])[0]
    to_group = rng.random() < TO_GROUPS and kind not in ("global", "everywhere")
    principal = group_id(rng.randrange(world.groups)) if to_group else user_id(rng.randrange(world.users))
    roles = {
        "global": ("user", "auditor"),
        "everywhere": ("cluster-viewer",),
        "cluster": ("cluster-viewer", "cluster-member", "cluster-owner", "custom-cluster-1", "custom-cluster-2"),
        "project": ("project-viewer", "project-member", "project-owner", "custom-project-1", "custom-project-2"),
    }[kind]
    scopes: dict[str, dict[str, Any]] = {
        "global": {"global": True}, "everywhere": {"global": True},
        "cluster": cluster_scope(rng.randrange(world.clusters)), "project": {"project": f"p{rng.randrange(world.projects)}"},
    }  # fmt: skip
    until = datetime.now(UTC) + timedelta(minutes=rng.randint(60, 43_200)) if rng.random() < EXPIRING else None
    return binding(f"b{number}", principal, rng.choice(roles), scopes[kind], until)


def _custom_roles() -> Iterator[RoleTemplate]:
    for scope in ("cluster", "project"):
        for number in range(1, 21):
            rule = {"verbs": ["get", "list", "watch"], "apiGroups": [f"g{number}.example.org"], "resources": ["things"]}
            hub = {
                "verbs": ["get", "list", "watch"],
                "apiGroups": ["management.herdsman.dev"],
                "resources": [f"{scope}s"],
            }
            spec = {"scope": scope, "rules": [rule], "hubRules": [hub], "inherits": [f"{scope}-viewer"]}
            yield RoleTemplate.model_validate({"metadata": _meta(f"custom-{scope}-{number}"), "spec": spec})


def _meta(name: str, labels: dict[str, str] | None = None) -> ObjectMeta:
    return ObjectMeta(name=name, uid=f"uid-{name}", creation_timestamp=BEGIN, generation=1, labels=labels)
