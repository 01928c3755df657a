"""A role in every cluster whose labels fit: at each moment, and nowhere else."""

from __future__ import annotations

import pytest

from libs.common.access.grants import compile_grants
from libs.common.access.lasting import find_lacking_of_user
from libs.common.resources.access import BindingScope
from libs.common.resources.registry import BY_PLURAL
from libs.common.resources.selectors import LabelSelector, Requirement, describe_selector, is_selected, selector_of
from services.gateway.sight import standing
from tests.access import made
from tests.access.test_live import world

ADA, BOB = made.user("ada"), made.user("bob")
VIEWER = made.role(
    "viewer", "cluster", rules=[made.rule("get", "pods")], hub=[made.hub_rule("get list watch", "nodes")]
)
DEV, PROD = made.cluster("dev-1", env="dev"), made.cluster("prod-1", env="prod", region="eu")
SCOPE = BindingScope.model_validate({"clusterSelector": {"matchLabels": {"env": "dev"}}})


def compiled(*bindings, clusters=(DEV, PROD), roles=(VIEWER,)):
    return compile_grants(roles, bindings, clusters, [ADA, BOB], made.BEGIN)


def groups(grants, cluster):
    return grants.synthetic_groups(made.caller(ADA), cluster.name, cluster.uid)


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ({"matchLabels": {"env": "dev"}}, {"env": "dev"}, True),
        ({"matchLabels": {"env": "dev"}}, {"env": "prod"}, False),
        ({"matchLabels": {"env": "dev", "region": "eu"}}, {"env": "dev"}, False),
        ({"matchExpressions": [{"key": "env", "operator": "In", "values": ["a", "b"]}]}, {"env": "b"}, True),
        ({"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["a"]}]}, {}, True),
        ({"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["a"]}]}, {"env": "a"}, False),
        ({"matchExpressions": [{"key": "env", "operator": "Exists"}]}, {"env": ""}, True),
        ({"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]}, {"env": ""}, False),
    ],
    ids=str,
)
def test_labels_fit_as_in_kubernetes(selector, labels, selected):
    parsed = LabelSelector.model_validate(selector)
    assert is_selected(parsed.requirements, labels) is selected
    assert selector_of(parsed.requirements).requirements == parsed.requirements


def test_selectors_that_say_the_same_are_the_same():
    one = LabelSelector.model_validate({"matchLabels": {"a": "1", "b": "2"}})
    other = LabelSelector.model_validate({
        "matchExpressions": [{"key": "b", "operator": "In", "values": ["2"]}, {"key": "a", "operator": "In", "values": ["1", "1"]}]
    })  # fmt: skip
    assert one.requirements == other.requirements
    assert describe_selector(one.requirements) == "a=1,b=2"
    assert Requirement("a", "notin", frozenset("xy")).describe() == "a notin (x,y)"


def test_a_role_by_labels_counts_in_the_clusters_that_have_them():
    grants = compiled(made.binding(ADA, "viewer", labels={"env": "dev"}))
    ada = made.caller(ADA)
    assert groups(grants, DEV) == ("herdsman:cluster:dev-1:viewer",)
    assert groups(grants, PROD) == ()
    assert grants.visible_clusters(ada) == {"dev-1"}
    assert grants.is_allowed(ada, "get", "nodes", "n", "dev-1")
    assert not grants.is_allowed(ada, "get", "nodes", "n", "prod-1")
    assert grants.is_allowed(ada, "get", "clusters", "dev-1")
    assert not grants.is_allowed(ada, "get", "clusters", "prod-1")
    assert grants.reaches(ada, "list", "nodes")
    assert not compiled(made.binding(ADA, "viewer", labels={"env": "none"})).reaches(ada, "list", "nodes")


def test_a_selector_without_a_condition_gives_nothing_however_it_was_stored():
    for scope in ({"clusterSelector": {}}, {"clusterSelector": {"matchLabels": {}}}):
        bound = made.binding(ADA, "viewer", everywhere=True)
        bound.spec.scope = BindingScope.model_validate(scope)
        assert groups(compiled(bound), DEV) == ()


def test_who_may_give_by_labels_holds_the_role_whatever_labels_become():
    today = compiled(made.binding(ADA, "viewer", cluster="dev-1"))
    assert today.covers(made.caller(ADA), VIEWER, SCOPE), (
        "held in all clusters of today that fit, and not in later ones"
    )
    for bound in (made.binding(ADA, "viewer", everywhere=True), made.binding(ADA, "viewer", labels={"env": "dev"})):
        assert compiled(bound).covers(made.caller(ADA), VIEWER, SCOPE) == []
    narrower = BindingScope.model_validate({"clusterSelector": {"matchLabels": {"env": "dev", "region": "eu"}}})
    by_labels = compiled(made.binding(ADA, "viewer", labels={"env": "dev"}))
    assert by_labels.covers(made.caller(ADA), VIEWER, narrower) == []
    assert by_labels.covers(made.caller(ADA), VIEWER, BindingScope(all=True))
    assert by_labels.covers(made.caller(ADA), VIEWER, BindingScope.model_validate({"clusterSelector": {"matchLabels": {"env": "prod"}}}))  # fmt: skip


def test_to_act_for_somebody_takes_their_roles_by_labels():
    bound = [made.binding(BOB, "viewer", labels={"env": "dev"}), made.binding(ADA, "viewer", cluster="dev-1")]
    grants = compiled(*bound)
    lacking = find_lacking_of_user(grants, made.caller(ADA), "bob", bound, made.BEGIN)
    assert any("every cluster with env=dev" in text for text in lacking)
    assert find_lacking_of_user(grants, made.caller(BOB), "bob", bound, made.BEGIN) == []


async def test_a_later_cluster_is_in_and_a_relabelled_one_out_on_the_next_call(clock):
    async with world(clock) as w:
        await w.put(ADA, VIEWER, made.binding(ADA, "viewer", labels={"env": "dev"}))
        assert groups(w.live.current, DEV) == ()
        await w.put(DEV)
        assert groups(w.live.current, DEV)
        await w.put(made.cluster("dev-1", env="prod"))
        assert groups(w.live.current, DEV) == ()
        await w.put(DEV)
        assert groups(w.live.current, DEV)


async def test_a_hub_watch_stands_until_the_clusters_it_shows_change(clock):
    async with world(clock) as w:
        await w.put(ADA, VIEWER, DEV, PROD, made.binding(ADA, "viewer", labels={"env": "dev"}))
        nodes, ada = BY_PLURAL["nodes"], made.caller(ADA)
        before = standing(w.live.current, ada, nodes)
        await w.put(made.cluster("prod-1", env="prod", region="us"))
        assert standing(w.live.current, ada, nodes) == before
        await w.put(made.cluster("prod-1", env="dev"))
        assert standing(w.live.current, ada, nodes) != before
