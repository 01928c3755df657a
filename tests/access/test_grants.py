from __future__ import annotations

from datetime import timedelta

import pytest

from libs.common.access.grants import compile_grants
from libs.common.access.lasting import find_lacking_of_user
from libs.common.resources.access import BindingScope
from tests.access import made

ADA, BOB, EVE = made.user("ada"), made.user("bob"), made.user("eve")
OWNER = made.role("owner", "cluster", rules=[made.rule("*", "*")], hub=[made.hub_rule("get update", "clusters")])
VIEWER = made.role("viewer", "cluster", rules=[made.rule("get", "pods")])
ADMIN = made.role("admin", "global", hub=[made.hub_rule("*", "*")])
MEMBER = made.role("member", "project", rules=[made.rule("get", "pods")])
ROLES = [OWNER, VIEWER, ADMIN, MEMBER]
CLUSTERS = [made.cluster("east"), made.cluster("west")]


def compiled(*bindings, now=made.BEGIN, clusters=CLUSTERS, projects=()):
    return compile_grants(ROLES, bindings, clusters, [ADA, BOB, EVE], now, projects)


def test_a_binding_for_a_project_of_the_same_moment_and_name_is_not_for_the_next_one():
    bound = made.binding(ADA, "member", project="shop")
    bound.spec.scope.project_uid = "uid-of-an-earlier-one"
    roles, clusters = [made.role("member", "project")], [made.cluster("west")]
    for uid, groups in (
        ("uid-of-an-earlier-one", ()),
        ("uid-shop", ("herdsman:project:shop:uid-shop:member",)),
        (None, ("herdsman:project:shop:uid-shop:member",)),
    ):
        bound.spec.scope.project_uid = uid
        grants = compile_grants(roles, [bound], clusters, [ADA], made.BEGIN, [made.project("shop", "west")])
        assert grants.synthetic_groups(made.caller(ADA), "west", "uid-west") == groups
        assert grants.held_projects(made.caller(ADA)) == ({"shop"} if groups else set())


def test_synthetic_groups_name_the_cluster_and_the_role():
    grants = compiled(made.binding(ADA, "owner", cluster="east"), made.binding(ADA, "viewer", everywhere=True))
    assert grants.synthetic_groups(made.caller(ADA), "east", "uid-east") == (
        "herdsman:cluster:east:owner",
        "herdsman:cluster:east:viewer",
    )
    assert grants.synthetic_groups(made.caller(ADA), "west", "uid-west") == ("herdsman:cluster:west:viewer",)
    assert grants.synthetic_groups(made.caller(ADA), "east", "uid-of-an-earlier-one") == ()
    assert grants.synthetic_groups(made.caller(BOB), "east", "uid-east") == ()


def test_a_group_binding_counts_for_its_members_alone():
    grants = compiled(made.binding("ldap:group:ops", "owner", cluster="east"))
    assert grants.synthetic_groups(made.caller(ADA, "ldap:group:ops"), "east", "uid-east")
    assert not grants.synthetic_groups(made.caller(ADA, "ldap:group:opsx"), "east", "uid-east")


def test_a_project_member_is_in_the_projects_clusters_only():
    project = made.project("shop", "west")
    grants = compiled(made.binding(ADA, "member", project="shop"), projects=[project])
    assert grants.synthetic_groups(made.caller(ADA), "west", "uid-west") == ("herdsman:project:shop:uid-shop:member",)
    assert grants.synthetic_groups(made.caller(ADA), "east", "uid-east") == ()
    assert grants.visible_clusters(made.caller(ADA)) == {"west"}


def test_a_binding_counts_until_its_very_moment():
    until = made.BEGIN + timedelta(hours=1)
    bound = made.binding(ADA, "owner", cluster="east", until=until)
    before = compiled(bound, now=until - timedelta(microseconds=1))
    assert before.next_expiry == until
    assert before.synthetic_groups(made.caller(ADA), "east", "uid-east")
    after = compiled(bound, now=until)
    assert after.next_expiry is None
    assert after.synthetic_groups(made.caller(ADA), "east", "uid-east") == ()


@pytest.mark.parametrize("scope", [{}, {"global": True, "cluster": "east"}, {"cluster": "east", "project": "shop"}])
def test_a_binding_without_exactly_one_scope_gives_nothing(scope):
    bound = made.binding(ADA, "owner", cluster="east")
    bound.spec.scope = BindingScope.model_validate(scope)
    assert compiled(bound).synthetic_groups(made.caller(ADA), "east", "uid-east") == ()


def test_visible_clusters():
    assert compiled(made.binding(ADA, "admin", everywhere=True)).visible_clusters(made.caller(ADA)) is None
    assert compiled(made.binding(ADA, "viewer", everywhere=True)).visible_clusters(made.caller(ADA)) is None
    assert compiled(made.binding(ADA, "viewer", cluster="east")).visible_clusters(made.caller(ADA)) == {"east"}
    assert compiled().visible_clusters(made.caller(ADA)) == set()


def test_a_token_for_some_clusters_reaches_neither_others_nor_the_hub():
    grants = compiled(made.binding(ADA, "admin", everywhere=True), made.binding(ADA, "owner", everywhere=True))
    scoped = made.caller(ADA, clusters=["east"])
    assert grants.synthetic_groups(scoped, "east", "uid-east")
    assert grants.synthetic_groups(scoped, "west", "uid-west") == ()
    assert grants.visible_clusters(scoped) == {"east"}
    assert not grants.is_allowed(scoped, "get", "users", "bob")


def test_a_read_only_token_only_reads():
    grants = compiled(made.binding(ADA, "admin", everywhere=True))
    reader = made.caller(ADA, read_only=True)
    assert grants.is_allowed(reader, "list", "users")
    assert not grants.is_allowed(reader, "update", "users", "bob")
    assert grants.covers(reader, VIEWER, BindingScope(cluster="east"))


def test_own_objects_are_seen_and_own_tokens_deleted():
    grants, caller = compiled(), made.caller(ADA)
    mine = {"metadata": {"name": "abc"}, "spec": {"user": "ada", "userUid": ADA.uid}}
    earlier = {"metadata": {"name": "abd"}, "spec": {"user": "ada", "userUid": "uid-of-an-earlier-ada"}}
    assert grants.is_allowed_on(caller, "delete", "tokens", mine)
    assert not grants.is_allowed_on(caller, "update", "tokens", mine)
    assert not grants.is_allowed_on(caller, "get", "tokens", earlier)
    assert not grants.is_allowed_on(made.caller(BOB), "get", "tokens", mine)
    assert grants.reaches(caller, "list", "tokens")
    assert not grants.is_allowed(caller, "list", "tokens")
    bound = made.binding(ADA, "owner", cluster="east").to_document()
    assert grants.is_allowed_on(caller, "get", "roletemplatebindings", bound)
    assert not grants.is_allowed_on(made.caller(BOB), "get", "roletemplatebindings", bound)


def test_objects_of_an_earlier_cluster_of_the_same_name_are_not_the_owners():
    owner = made.role("owner", "cluster", hub=[made.hub_rule("get", "nodes")])
    grants = compile_grants([owner], [made.binding(ADA, "owner", cluster="east")], CLUSTERS, [ADA], made.BEGIN)
    node = {"metadata": {"name": "east.n1"}, "spec": {"cluster": "east", "clusterUid": "uid-east"}}
    assert grants.is_allowed_on(made.caller(ADA), "get", "nodes", node)
    node["spec"]["clusterUid"] = "uid-of-an-earlier-east"
    assert not grants.is_allowed_on(made.caller(ADA), "get", "nodes", node)


def test_a_giver_can_only_give_what_the_giver_holds_there():
    grants = compiled(made.binding(ADA, "owner", cluster="east"), made.binding(BOB, "viewer", everywhere=True))
    east, west, everywhere = BindingScope(cluster="east"), BindingScope(cluster="west"), BindingScope(all=True)
    assert grants.covers(made.caller(ADA), OWNER, east) == []
    assert grants.covers(made.caller(ADA), VIEWER, east) == []
    assert "get pods (in cluster west)" in grants.covers(made.caller(ADA), VIEWER, west)
    assert grants.covers(made.caller(ADA), VIEWER, everywhere)
    assert grants.covers(made.caller(BOB), VIEWER, west) == []
    assert "* * (in cluster east)" in grants.covers(made.caller(BOB), OWNER, east)
    assert grants.covers(made.caller(EVE), VIEWER, east)


def test_an_admin_of_the_hub_is_not_for_that_an_owner_of_clusters():
    grants = compiled(made.binding(ADA, "admin", everywhere=True))
    assert grants.covers(made.caller(ADA), ADMIN, BindingScope(all=True)) == []
    assert grants.covers(made.caller(ADA), OWNER, BindingScope(cluster="east")) == ["* * (in cluster east)"]


def test_a_project_role_is_covered_by_owning_every_cluster_of_the_project():
    both, one = made.project("both", "east", "west"), made.project("one", "east")
    grants = compiled(made.binding(ADA, "owner", cluster="east"), projects=[both, one])
    assert grants.covers(made.caller(ADA), MEMBER, BindingScope(project="one")) == []
    assert grants.covers(made.caller(ADA), MEMBER, BindingScope(project="both")) == ["get pods (in cluster west)"]
    assert grants.covers(made.caller(ADA), MEMBER, BindingScope(project="gone"))


def test_to_act_for_somebody_takes_everything_that_they_hold():
    bound = [
        made.binding(ADA, "admin", everywhere=True), made.binding(ADA, "owner", cluster="east"),
        made.binding(BOB, "viewer", cluster="east"), made.binding(EVE, "viewer", cluster="west"),
    ]  # fmt: skip
    grants = compiled(*bound)
    assert find_lacking_of_user(grants, made.caller(ADA), "bob", bound, made.BEGIN) == []
    assert find_lacking_of_user(grants, made.caller(ADA), "eve", bound, made.BEGIN) == ["get pods (in cluster west)"]
    assert find_lacking_of_user(grants, made.caller(BOB), "ada", bound, made.BEGIN)


def test_rules_list_what_a_review_shows():
    grants = compiled(made.binding(ADA, "owner", cluster="east"))
    shown = grants.rules(made.caller(ADA))
    assert any(rule.verbs == ["get", "update"] and rule.resources == ["clusters"] for rule in shown)
    assert grants.rules(made.caller(made.user("ada", "another"))) == []
