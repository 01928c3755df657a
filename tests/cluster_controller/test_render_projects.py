"""What projects put into a cluster: a binding for each role and namespace, to a group of the project's uid, in parts of bounded size."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.access.roles import resolve_roles
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.projects import ContainerLimits, Project, ProjectNamespace, ProjectSpec
from libs.common.resources.registry import BY_MODEL
from libs.common.store.objects import encode_unique, modify
from services.agent.claims import find_claim_refusal, is_claim
from services.agent.owned import find_refusal
from services.cluster_controller.render import render_desired
from services.cluster_controller.render_projects import NAMESPACES_PER_PART, group_namespaces
from tests.cluster_controller.made import ROLES, Hub, role, started_hub

GOLDEN = Path(__file__).with_name("golden_project.yaml")
AT = datetime(2026, 1, 1, tzinfo=UTC)


def project(name: str, *places: str, uid: str = "", age: int = 0) -> Project:
    entries = [ProjectNamespace(cluster=p.partition("/")[0], namespace=p.partition("/")[2]) for p in places]
    metadata = ObjectMeta(name=name, uid=uid or f"uid-{name}", creation_timestamp=AT - timedelta(days=age))
    return Project(metadata=metadata, spec=ProjectSpec(namespaces=entries))


def rendered(*projects: Project, cluster: str = "edge") -> dict[str, list[dict[str, Any]]]:
    return {part.name: part.objects for part in render_desired(resolve_roles(ROLES), cluster, projects)}


def test_each_project_role_is_bound_in_each_namespace_of_the_cluster_whoever_holds_it() -> None:
    parts = rendered(project("web", "edge/shop", "west/shop", "edge/blog", uid="u1"), project("far", "west/x"))
    assert parts.keys() == {"roles", "projects/web"}
    bound = [
        (o["metadata"]["namespace"], o["roleRef"]["name"], o["subjects"][0]["name"])
        for o in parts["projects/web"]
        if o["kind"] == "RoleBinding"
    ]
    claims = [(o["metadata"]["name"], o["spec"]) for o in parts["projects/web"] if is_claim(o)]
    assert claims == [(name, {"project": "web", "projectUid": "u1"}) for name in ("blog", "shop")]
    assert bound == [
        ("blog", "herdsman:project-member", "herdsman:project:web:u1:project-member"),
        ("shop", "herdsman:project-member", "herdsman:project:web:u1:project-member"),
    ]
    assert all(find_refusal(o) == "" for o in parts["projects/web"])
    assert all(find_claim_refusal(o) == "" for o in parts["projects/web"] if is_claim(o))


def test_a_project_made_again_under_its_name_shares_no_group_with_the_first() -> None:
    def groups(uid: str) -> set[str]:
        objects = rendered(project("web", "edge/a", uid=uid))["projects/web"]
        return {s["name"] for o in objects for s in o.get("subjects", ())}

    assert groups("u1").isdisjoint(groups("u2"))


def test_what_a_project_wants_of_its_namespaces_is_rendered_into_them_as_it_stands() -> None:
    made = project("web", "edge/a", "edge/b", uid="u1")
    made.spec.namespaces[0].create = True
    made.spec.namespaces[0].share = {"requests.cpu": "500m", "pods": "7"}
    made.spec.container_limits = ContainerLimits(default={"memory": "512Mi"}, default_request={"cpu": "0.1"})
    made.spec.isolated = True
    made.spec.pod_security = "baseline"
    made.spec.labels, made.spec.annotations = {"team": "web"}, {"example.com/mail": "web@example.com"}
    objects = rendered(made)["projects/web"]
    assert objects == yaml.safe_load(GOLDEN.read_text()), yaml.safe_dump(objects, sort_keys=False)


def test_a_namespace_that_two_projects_name_is_of_the_older() -> None:
    old, young = project("z-old", "edge/a", age=1), project("a-young", "edge/a", "edge/b")
    for order in ((old, young), (young, old)):
        parts = group_namespaces("edge", order)
        assert {n: [e.namespace for e in entries] for n, (_p, entries) in parts.items()} == {
            "projects/z-old": ["a"],
            "projects/a-young": ["b"],
        }


def test_a_project_being_deleted_holds_nothing() -> None:
    gone = project("web", "edge/a")
    gone.metadata.deletion_timestamp = AT
    assert rendered(gone).keys() == {"roles"}


@given(st.integers(0, 700), st.randoms())
@settings(max_examples=40, deadline=None)
def test_parts_hold_every_namespace_once_in_any_order_and_stay_small(count: int, random: Any) -> None:
    names = [f"edge/n{n}" for n in range(count)]
    shuffled = random.sample(names, count)
    parts = rendered(project("web", *shuffled))
    assert parts == rendered(project("web", *names))
    held = [o["metadata"]["name"] for name, part in parts.items() if name != "roles" for o in part if is_claim(o)]
    assert sorted(held) == sorted(f"n{n}" for n in range(count))
    assert all(len(part) <= 4 * NAMESPACES_PER_PART for name, part in parts.items() if name != "roles")


def test_one_more_namespace_changes_one_part() -> None:
    places = [f"edge/n{n}" for n in range(200)]
    before, after = rendered(project("web", *places)), rendered(project("web", *places, "edge/one-more"))
    assert sum(before.get(name) != part for name, part in after.items()) == 1


@given(st.integers(0, 300))
@settings(max_examples=25, deadline=None)
def test_one_more_namespace_cuts_one_part_at_most_and_leaves_the_others_alone(count: int) -> None:
    places = [f"edge/n{n}" for n in range(count + 1)]
    before, after = (group_namespaces("edge", [project("web", *p)]) for p in (places[:-1], places))
    held = [
        {name: {e.namespace for e in entries} for name, (_p, entries) in parts.items()} for parts in (before, after)
    ]
    lost = [name for name, namespaces in held[0].items() if not namespaces <= held[1].get(name, set())]
    assert len(lost) <= 1
    assert all(len(namespaces) <= NAMESPACES_PER_PART for namespaces in held[1].values())


async def put(hub: Hub, made: Project) -> None:
    await hub.projects_store.create(BY_MODEL[Project].key(made.name), encode_unique(made))


@pytest.fixture
async def hub() -> Any:
    async with started_hub() as made:
        yield made


async def test_a_project_reaches_its_clusters_and_leaves_them_when_it_goes(hub: Hub) -> None:
    assert hub.desired.hashes("edge").keys() == {"roles"}
    await put(hub, project("web", "edge/a"))
    await hub.settle()
    first = hub.desired.hashes("edge")
    assert first.keys() == {"roles", "projects/web"}
    assert hub.desired.hashes("west").keys() == {"roles"}
    assert hub.desired.hashes("edge") == first
    wanted = {p.name: p for p in render_desired(hub.current.roles, "edge", [project("web", "edge/a")])}
    assert first == {name: part.hash for name, part in wanted.items()}
    sent = hub.desired.select("edge", {"roles": first["roles"]})
    assert sent.names == ["projects/web", "roles"]
    assert [(p.name, p.objects) for p in sent.parts] == [("projects/web", wanted["projects/web"].objects)]

    def move(current: Project) -> bool:
        current.spec.namespaces = [ProjectNamespace(cluster="west", namespace="a")]
        return True

    await modify(hub.projects_store, Project, "web", move, now=hub.now)
    await hub.settle()
    assert hub.desired.hashes("edge").keys() == {"roles"}
    assert hub.desired.hashes("west").keys() == {"roles", "projects/web"}


def test_what_came_in_with_an_earlier_cluster_of_the_name_is_none_of_this_one() -> None:
    web = project("web", "edge/a", "edge/b")
    web.spec.namespaces[0].cluster_uid, web.spec.namespaces[1].cluster_uid = "of an earlier one", "uid-edge"
    (found,) = group_namespaces("edge", [web], "uid-edge").values()
    assert [entry.namespace for entry in found[1]] == ["b"]


async def test_only_a_change_of_what_a_project_is_touches_its_clusters(hub: Hub) -> None:
    seen: list[set[str]] = []
    projects = hub.projects
    hub.project_informer.subscribe(lambda change: seen.append(set(projects.touched(change))), replay=False)
    await put(hub, project("web", "edge/a"))
    await hub.settle()

    def say(current: Project) -> bool:
        return current.status.set_condition("Seen", True, "Seen", "seen", AT, 1)

    def add(current: Project) -> bool:
        current.spec.namespaces.append(ProjectNamespace(cluster="west", namespace="b"))
        return True

    await modify(hub.projects_store, Project, "web", say, now=hub.now)
    await modify(hub.projects_store, Project, "web", add, now=hub.now)
    await hub.settle()
    assert seen == [{"edge"}, set(), {"edge", "west"}]


async def test_a_changed_role_is_rendered_again_for_all(hub: Hub) -> None:
    await put(hub, project("web", "edge/a"))
    await hub.settle()
    before = hub.desired.hashes("edge")
    hub.roles.append(role("project-cook", "project"))
    after = hub.desired.hashes("edge")
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
