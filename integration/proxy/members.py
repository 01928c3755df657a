"""A member of a project in front of a real cluster: what authz, project and the agent would have made of it, for the front door alone."""

from __future__ import annotations

import json
from collections.abc import Iterable

from integration.kubelab.cluster import Cluster
from integration.kubelab.kubectl import kubectl
from libs.common.access.roles import resolve_roles
from libs.common.resources.access import (  # fmt: skip
    BindingScope,
    PolicyRule,
    RoleTemplate,
    RoleTemplateBinding,
    RoleTemplateBindingSpec,
    RoleTemplateSpec,
)
from libs.common.resources.projects import Project, ProjectNamespace, ProjectSpec
from services.cluster_controller.render import render_desired
from tests.auth_proxy.door import Door, meta

SEES = [PolicyRule(verbs=["get", "list", "watch"], api_groups=[""], resources=["namespaces", "pods"])]


def role(name: str = "sees", rules: list[PolicyRule] | None = None) -> RoleTemplate:
    return RoleTemplate(
        metadata=meta(name), spec=RoleTemplateSpec(scope="project", rules=SEES if rules is None else rules)
    )


def project(name: str, namespaces: Iterable[str], uid: str, cluster: str = "prod") -> Project:
    entries = [ProjectNamespace(cluster=cluster, namespace=n) for n in namespaces]
    return Project(metadata=meta(name, uid), spec=ProjectSpec(namespaces=entries))


async def put_project(door: Door, cluster: Cluster, name: str, *namespaces: str) -> Project:
    """The project as it is from now on, and in the cluster all that its agent would apply."""
    made = project(name, namespaces, door.uids.setdefault(f"project/{name}", f"uid-of-{name}"))
    await door.put(role())
    await door.put(made)
    await apply(cluster, [made])
    return made


async def put_member(door: Door, user: str, project_name: str, role_name: str = "sees") -> str:
    """The person with a role in the project; returns a token."""
    person = await door.user(user)
    await bind(door, user, project_name, role_name)
    return await door.token(person)


async def bind(door: Door, user: str, project_name: str, role_name: str = "sees") -> None:
    scope = BindingScope(project=project_name, project_uid=door.uids[f"project/{project_name}"])
    spec = RoleTemplateBindingSpec(
        principal=f"local:user:{door.uids[f'user/{user}']}", user=user, role=role_name, scope=scope
    )
    await door.put(RoleTemplateBinding(metadata=meta(f"{user}-{project_name}-{role_name}"), spec=spec))


async def apply(cluster: Cluster, projects: Iterable[Project], roles: Iterable[RoleTemplate] = ()) -> None:
    parts = render_desired(resolve_roles(roles or [role()]), "prod", projects)
    objects = [o for part in parts for o in part.objects if o["kind"] != "NamespaceClaim"]
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    answer = await kubectl(
        cluster.kubeconfig, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=document.encode()
    )
    assert answer.code == 0, answer.err


async def make_namespaces(cluster: Cluster, *names: str) -> None:
    for name in names:
        answer = await kubectl(cluster.kubeconfig, "create", "namespace", name)
        assert answer.code == 0 or "already exists" in answer.err, answer.err
