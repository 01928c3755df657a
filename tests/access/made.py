"""Short ways to make users, roles, bindings and clusters for tests of grants."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from libs.common.access.principal import Principal, local_user_principal
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.identity import User
from libs.common.resources.meta import GROUP, ObjectMeta
from libs.common.resources.projects import Project

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def meta(name: str, uid: str = "", **more: Any) -> ObjectMeta:
    return ObjectMeta(name=name, uid=uid or f"uid-{name}", creation_timestamp=more.pop("created", BEGIN), **more)


def user(name: str, uid: str = "", *, enabled: bool = True) -> User:
    made = User(metadata=meta(name, uid))
    made.spec.enabled = enabled
    made.status.principal_id = local_user_principal(made.uid)
    return made


def cluster(name: str, uid: str = "", **labels: str) -> Cluster:
    return Cluster(metadata=meta(name, uid, labels=labels or None))


def project(name: str, *clusters: str, created: datetime = BEGIN) -> Project:
    namespaces = [{"cluster": c, "namespace": "shop"} for c in clusters]
    return Project.model_validate({"metadata": meta(name, created=created), "spec": {"namespaces": namespaces}})


def rule(verbs: str, resources: str, *names: str, group: str = "") -> dict[str, Any]:
    return {
        "verbs": verbs.split(), "apiGroups": [group], "resources": resources.split(), "resourceNames": list(names)
    }  # fmt: skip


def hub_rule(verbs: str, resources: str, *names: str) -> dict[str, Any]:
    return rule(verbs, resources, *names, group=GROUP)


def role(
    name: str,
    scope: str,
    *,
    rules: list[dict[str, Any]] | None = None,
    hub: list[dict[str, Any]] | None = None,
    inherits: list[str] | None = None,
) -> RoleTemplate:
    spec = {"scope": scope, "rules": rules or [], "hubRules": hub or [], "inherits": inherits or []}
    return RoleTemplate.model_validate({"metadata": meta(name), "spec": spec})


def binding(
    who: User | str, role_name: str, *, name: str = "", uid: str = "", until: datetime | None = None,
    created: datetime = BEGIN, **scope: Any,
) -> RoleTemplateBinding:  # fmt: skip
    """`scope`: everywhere=True, cluster="c" (with `uid`), labels={"env": "dev"}, or project="p"."""
    principal = who if isinstance(who, str) else who.status.principal_id
    where: dict[str, Any] = {"global": True} if scope.get("everywhere") else dict(scope)
    if "labels" in where:
        where = {"clusterSelector": {"matchLabels": where["labels"]}}
    if "cluster" in where:
        where["clusterUid"] = uid or f"uid-{where['cluster']}"
    spec = {"principal": principal, "role": role_name, "scope": where, "notAfter": until}
    said = "-".join("-".join(v.values()) if isinstance(v, dict) else str(v) for v in scope.values())
    name = name or f"{principal}-{role_name}-{said}".replace(":", "-").lower()
    return RoleTemplateBinding.model_validate({"metadata": meta(name, created=created), "spec": spec})


def caller(who: User, *groups: str, **more: Any) -> Principal:
    return Principal(
        user=who.name, user_uid=who.uid, principal_id=who.status.principal_id, group_ids=list(groups), **more
    )
