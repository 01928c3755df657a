"""A token that is good for some projects alone: a narrower scope never gives a right that the wider one does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.access.grants import compile_grants
from libs.common.resources.access import BindingScope
from tests.access import made

ADA = made.user("ada")
EVERYTHING = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
ROLES = [
    made.role("admin", "global", hub=EVERYTHING), made.role("owner", "cluster", rules=[made.rule("*", "*")]),
    made.role("member", "project", rules=[made.rule("*", "pods")]),
]  # fmt: skip
PROJECTS = [made.project("shop", "west"), made.project("blog", "west", "east")]
CLUSTERS = [made.cluster("east"), made.cluster("west")]
SHOP, BLOG = "herdsman:project:shop:uid-shop:member", "herdsman:project:blog:uid-blog:member"


def grants_of(*bindings):
    return compile_grants(ROLES, bindings, CLUSTERS, [ADA], made.BEGIN, PROJECTS)


def groups(grants, cluster, **scope):
    caller = made.caller(ADA).model_copy(update=scope)
    return set(grants.synthetic_groups(caller, cluster, next(c.uid for c in CLUSTERS if c.name == cluster)))


def test_only_the_roles_of_its_projects_count_and_the_clusters_own_do_not():
    grants = grants_of(
        made.binding(ADA, "owner", cluster="west"),
        made.binding(ADA, "member", project="shop"),
        made.binding(ADA, "member", project="blog"),
    )
    assert groups(grants, "west") == {"herdsman:cluster:west:owner", SHOP, BLOG}
    assert groups(grants, "west", projects=["shop"]) == {SHOP}
    assert groups(grants, "east", projects=["shop"]) == set()
    assert groups(grants, "east", projects=["blog"]) == {BLOG}
    assert groups(grants, "east", projects=["blog"], clusters=["west"]) == set()
    assert groups(grants, "west", projects=["gone"]) == set()


def test_it_sees_the_clusters_of_its_projects_alone():
    grants = grants_of(made.binding(ADA, "owner", everywhere=True), made.binding(ADA, "member", project="shop"))
    assert grants.visible_clusters(made.caller(ADA)) is None
    assert grants.visible_clusters(made.caller(ADA).model_copy(update={"projects": ["shop"]})) == {"west"}
    assert grants.visible_clusters(made.caller(ADA).model_copy(update={"projects": ["gone"]})) == set()


def test_it_is_good_for_nothing_of_the_hub_and_gives_nothing():
    grants = grants_of(made.binding(ADA, "admin", everywhere=True), made.binding(ADA, "member", project="shop"))
    scoped = made.caller(ADA).model_copy(update={"projects": ["shop"]})
    assert grants.is_allowed(made.caller(ADA), "delete", "clusters", "east")
    for verb, plural, name in (
        ("delete", "clusters", "east"),
        ("get", "users", "ada"),
        ("list", "tokens", ""),
        ("get", "projects", "shop"),
    ):
        assert not grants.is_allowed(scoped, verb, plural, name)
        assert not grants.reaches(scoped, verb, plural)
    assert grants.rules(scoped) == []
    assert grants.covers(scoped, ROLES[2], BindingScope(project="shop"))


def test_projects_are_those_with_a_role_of_their_own():
    grants = grants_of(made.binding(ADA, "owner", everywhere=True), made.binding(ADA, "member", project="shop"))
    assert grants.held_projects(made.caller(ADA)) == {"shop"}
    assert grants.held_projects(made.caller(made.user("eve"))) == set()


names = st.lists(st.sampled_from(["shop", "blog", "gone"]), unique=True)
bound = st.lists(
    st.sampled_from(
        [
            ("owner", {"cluster": "west"}),
            ("owner", {"everywhere": True}),
            ("member", {"project": "shop"}),
            ("member", {"project": "blog"}),
        ]
    ),
    max_size=4,
)


@pytest.mark.parametrize("cluster", ["east", "west"])
@given(bindings=bound, projects=names, more=names)
def test_a_narrower_scope_never_adds_a_right(cluster, bindings, projects, more):
    grants = grants_of(*(made.binding(ADA, role, **where) for role, where in bindings))
    wide, narrow = sorted({*projects, *more}), projects
    assert groups(grants, cluster, projects=narrow) <= groups(grants, cluster) or not narrow
    if narrow:
        assert (
            groups(grants, cluster, projects=narrow)
            <= groups(grants, cluster, projects=wide)
            <= groups(grants, cluster)
        )
