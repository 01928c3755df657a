"""What the hub compiles is what a real API server allows: generated roles, projects and bindings, asked as each grantee.

The list that `kubectl auth can-i --list` shows (SelfSubjectRulesReview) is compared as a whole, right by right, in every namespace;
single questions (SubjectAccessReview) are compared with the compiled rules.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from integration.agent.looking import HUB_GROUP, Looker
from integration.agent.tests.test_apply import HubSide, Setup
from libs.common.access.grants import Grants, compile_grants
from libs.common.access.principal import Principal
from libs.common.access.roles import EffectiveRole
from libs.common.kube.client import KubeClient
from libs.common.resources.access import RoleTemplate
from libs.common.resources.identity import User
from libs.common.resources.projects import Project
from tests.access import made
from tests.cluster_controller.test_render_projects import project

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(300)]
CLUSTER = "edge"
SPACES = ("alpha", "beta", "gamma", "outside")
"""The last is in no project: what is allowed there is allowed in the whole cluster."""
WORLDS, PEOPLE, QUESTIONS = 9, 10, 12
VERBS = ("get", "list", "watch", "create", "update", "delete", "*")
RESOURCES = (("", "pods"), ("", "secrets"), ("", "configmaps"), ("", "pods/log"), ("apps", "deployments"), ("apps", "*"), ("", "nodes"),
             ("*", "*"), ("", "*/status"), ("batch", "jobs"), ("rbac.authorization.k8s.io", "roles"))  # fmt: skip
Right = tuple[str, str, str, str]
"""verb, group, resource, name ("" = any)."""


class World:
    """Roles of all scopes that inherit from each other, projects over the namespaces, people with some of the roles."""

    def __init__(self, seed: int) -> None:
        self.random = pick = random.Random(seed)
        self.roles: list[RoleTemplate] = []
        for scope in ("cluster", "project"):
            for number in range(pick.randint(2, 4)):
                names = [r.name for r in self.roles if r.spec.scope == scope]
                inherits = pick.sample(names, pick.randint(0, min(1, len(names))))
                rules = [self._rule() for _ in range(pick.randint(1, 3))]
                self.roles.append(made.role(f"{scope}-{number}", scope, rules=rules, inherits=inherits))
        self.roles.append(made.role("everywhere", "global", hub=[made.hub_rule("get", "clusters")]))
        spaces = list(SPACES[:-1])
        pick.shuffle(spaces)
        cut = pick.randint(0, len(spaces))
        self.projects = [self._project("one", spaces[:cut], seed), self._project("two", spaces[cut:], seed)]
        self.people = [made.user(f"u{number}") for number in range(PEOPLE)]
        self.bindings = [b for person in self.people for b in self._bindings(person)]

    def grants(self) -> Grants:
        return compile_grants(
            self.roles, self.bindings, [made.cluster(CLUSTER)], self.people, made.BEGIN, self.projects
        )

    def _rule(self) -> dict[str, Any]:
        group, resource = self.random.choice(RESOURCES)
        verbs = " ".join(self.random.sample(VERBS, self.random.randint(1, 3)))
        names = self.random.choice([(), (), ("a",), ("a", "b")])
        return made.rule(verbs, resource, *names, group=group)

    def _project(self, name: str, spaces: Iterable[str], seed: int) -> Project:
        return project(name, *(f"{CLUSTER}/{space}" for space in spaces), uid=f"{name}-{seed}")

    def _bindings(self, person: User) -> Iterator[Any]:
        for role in self.random.sample(self.roles, self.random.randint(0, 3)):
            where: dict[str, Any] = {"everywhere": True}
            if role.spec.scope == "project":
                where = {"project": self.random.choice(self.projects).name}
            elif role.spec.scope == "cluster" and self.random.random() < 0.7:
                where = {"cluster": CLUSTER}
            yield made.binding(person, role.name, **where)


class Reviewer:
    """Asks the API server as somebody else."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def list_rights(self, user: str, groups: Iterable[str], space: str) -> set[Right]:
        """What `kubectl auth can-i --list` shows, split into single rights."""
        client = As(self._client, user, groups)
        document = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": space},
        }  # fmt: skip
        answer = await client.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", document)
        return set(split(answer["status"]["resourceRules"]))

    async def is_allowed(self, user: str, groups: Iterable[str], right: Right, space: str) -> bool:
        verb, group, resource, name = right
        resource, _, subresource = resource.partition("/")
        attributes = {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name, "namespace": space,
        }  # fmt: skip
        document = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": list(groups), "resourceAttributes": attributes},
        }
        answer = await self._client.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", document)
        return bool(answer["status"]["allowed"])


class As(KubeClient):
    """The same client under another identity."""

    def __init__(self, client: KubeClient, user: str, groups: Iterable[str]) -> None:
        super().__init__(client.endpoint, user_agent="tests", as_user=user, as_groups=tuple(groups))
        self._whole = client

    async def _open(self) -> Any:
        return await self._whole._open()


def split(rules: Iterable[Mapping[str, Any]]) -> Iterator[Right]:
    for rule in rules:
        for verb in rule["verbs"]:
            for group in rule.get("apiGroups") or ():
                for resource in rule.get("resources") or ():
                    for name in rule.get("resourceNames") or ("",):
                        yield verb, group, resource, name


def roles_there(grants: Grants, world: World, who: Principal, space: str) -> list[EffectiveRole]:
    """The roles that count for somebody in a namespace, as the hub compiles them."""
    held = grants._held(who)
    roles = list(grants.roles_in_cluster(held, CLUSTER))
    for candidate in world.projects:
        if any(entry.namespace == space for entry in candidate.spec.namespaces):
            roles += grants.roles_in_project(held, candidate.name)
    return roles


async def soon_equal(ask: Any, wanted: object) -> object:
    """The answer, as soon as it is the wanted one: an API server's authorizer follows its store by a moment."""
    for _ in range(50):
        if (answer := await ask()) == wanted:
            break
        await asyncio.sleep(0.1)
    return answer


async def test_what_the_hub_compiles_is_what_a_real_api_server_allows(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    for space in SPACES:
        await looker.run("create", "namespace", space)
    reviewer = Reviewer(client)
    strangers = {space: await reviewer.list_rights("herdsman:nobody", (), space) for space in SPACES}
    lists = questions = 0
    async with Setup(client, tmp_path, HubSide([])) as s:
        for seed in range(WORLDS):
            world = World(seed)
            grants = world.grants()
            s.hub.roles, s.hub.projects = world.roles, world.projects
            await s.keeper.pull()
            assert {r.name: r.error for r in await s.keeper.enforce() if r.error} == {}
            for person in world.people:
                who = made.caller(person)
                groups = grants.synthetic_groups(who, CLUSTER, f"uid-{CLUSTER}")
                user = f"herdsman:{person.name}"
                for space in SPACES:
                    roles = roles_there(grants, world, who, space)
                    rules = [rule.to_document() for role in roles for rule in role.rules]
                    wanted = strangers[space] | set(split(rules))
                    ask = lambda u=user, g=groups, sp=space: reviewer.list_rights(u, g, sp)  # noqa: E731
                    found = await soon_equal(ask, wanted)
                    assert found == wanted, (seed, person.name, space, groups, found ^ wanted)  # type: ignore[operator]
                    lists += 1
                    for _ in range(QUESTIONS // len(SPACES)):
                        verb = world.random.choice(VERBS[:-1])
                        group, resource = world.random.choice([r for r in RESOURCES if "*" not in "".join(r)])
                        right = (verb, group, resource, world.random.choice(["", "a", "c"]))
                        name, _, subresource = resource.partition("/")
                        expected = any(role.rule_set.allows(verb, group, name, subresource, right[3]) for role in roles)
                        assert await reviewer.is_allowed(user, groups, right, space) == expected, (
                            seed,
                            person.name,
                            space,
                            right,
                        )
                        questions += 1
        # kubectl itself, for a handful of them.
        for person in world.people[:4]:
            groups = grants.synthetic_groups(made.caller(person), CLUSTER, f"uid-{CLUSTER}")
            as_groups = [option for group in groups for option in ("--as-group", group)]
            shown = await looker.run(
                "auth", "can-i", "--list", "-n", SPACES[0], "--as", f"herdsman:{person.name}", *as_groups
            )
            rights = await reviewer.list_rights(f"herdsman:{person.name}", groups, SPACES[0])
            assert {line.split()[0] for line in shown.splitlines()[1:] if line.split()[0][0] != "["} == {
                f"{resource}.{group}" if group else resource for _verb, group, resource, _name in rights
            }
        assert await s.detacher.remove() == []
    print(f"{lists} lists of rights and {questions} questions agree")
    assert lists >= 300
    for space in SPACES:
        await looker.run("delete", "namespace", space)


async def test_the_number_of_objects_depends_on_roles_and_namespaces_and_not_on_users(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    world = World(4)
    spaces = [entry.namespace for p in world.projects for entry in p.spec.namespaces]
    for space in spaces:
        await looker.run("create", "namespace", space)

    async def count() -> int:
        kinds = "clusterroles,clusterrolebindings,roles,rolebindings"
        found = json.loads(await looker.run("get", kinds, "-A", "-o", "json"))["items"]
        return len([i for i in found if i["metadata"]["name"].startswith("herdsman:")])

    async with Setup(client, tmp_path, HubSide(world.roles)) as s:
        s.hub.projects = world.projects
        await s.keeper.pull()
        assert [r.error for r in await s.keeper.enforce() if r.error] == []
        cluster_roles = [r for r in world.roles if r.spec.scope == "cluster"]
        project_roles = [r for r in world.roles if r.spec.scope == "project"]
        expected = len(HUB_GROUP) + 2 * len(cluster_roles) + len(project_roles) * (1 + len(spaces))
        assert await count() == expected

        people = [made.user(f"p{number}") for number in range(10_000)]
        bindings = [made.binding(p, project_roles[0].name, project=world.projects[0].name) for p in people[:5000]]
        bindings += [made.binding(p, cluster_roles[0].name, cluster=CLUSTER) for p in people[5000:]]
        grants = compile_grants(world.roles, bindings, [made.cluster(CLUSTER)], people, made.BEGIN, world.projects)
        assert len(grants.held) == 10_000
        assert all(grants.synthetic_groups(made.caller(p), CLUSTER, f"uid-{CLUSTER}") for p in people[5000:5010])
        # Nothing of it is an input of what the cluster is sent.
        assert not await s.keeper.pull()
        await s.keeper.enforce()
        assert await count() == expected
        assert await s.detacher.remove() == []
    for space in spaces:
        await looker.run("delete", "namespace", space)
