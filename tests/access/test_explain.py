"""The reasons for rights: they agree with the grants on whatever was generated, and say the chain."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.access import explain
from libs.common.access.explain import Facts, bound_role, find_ways
from libs.common.access.grants import compile_grants
from libs.common.access.principal import cluster_group, project_group
from libs.common.access.sayings import Question
from libs.common.resources.meta import GROUP
from tests.access import made
from tests.access.test_properties import BINDINGS as PLAIN
from tests.access.test_properties import CALLERS, PEOPLE, PROJECTS, QUESTIONS, ROLES

ADA, BOB = PEOPLE
CLUSTERS = [made.cluster("a", env="prod"), made.cluster("b", env="dev", team="x")]
BY_LABELS = st.lists(
    st.builds(
        lambda who, role, labels: made.binding(who, role, labels=labels),
        st.sampled_from([*PEOPLE, "ldap:group:g1"]),
        st.sampled_from(["cluster-1", "cluster-2", "global-1"]),
        st.sampled_from([{"env": "prod"}, {"env": "dev"}, {"team": "x"}, {"env": "none"}]),
    ),
    max_size=2,
    unique_by=lambda b: b.name,
)
BINDINGS = st.builds(lambda plain, more: [*plain, *more], PLAIN, BY_LABELS)
SHOP = {"p": frozenset({("a", "shop")}), "q": frozenset({("a", "shop"), ("b", "shop")})}


def facts(
    roles, bindings, *, clusters=CLUSTERS, users=PEOPLE, projects=PROJECTS, namespaces=SHOP, now=made.BEGIN, groups=()
):
    grants = compile_grants(roles, bindings, clusters, users, now, projects, groups)
    return Facts(grants, tuple(map(bound_role, bindings)), {r.name: r for r in roles}, now, namespaces)


def inside(grants, caller, cluster, verb, resource, name, namespace):
    """What the cluster's own RBAC would say to the groups that the front door sends."""
    groups = set(grants.synthetic_groups(caller, cluster.name, cluster.uid))
    for role in grants.roles.values():
        here = {cluster_group(cluster.name, role.name)}
        for project in PROJECTS:
            if (cluster.name, namespace) in SHOP[project.name]:
                here.add(project_group(project.name, project.uid, role.name))
        if groups & here and role.rule_set.allows(verb, "", resource, "", name):
            return True
    return False


@settings(deadline=None)
@given(ROLES, BINDINGS)
def test_what_is_explained_on_the_hub_is_allowed_and_what_is_allowed_is_explained(roles, bindings):
    moment = facts(roles, bindings)
    for caller in CALLERS:
        ids = frozenset(caller.principal_ids)
        for verb, plural, name, cluster, project in QUESTIONS:
            question = Question(verb, GROUP, plural, name, cluster, project=project)
            explained = any(not way.only_names or name in way.only_names for way in find_ways(moment, question, ids))
            allowed = moment.grants.is_allowed(caller, verb, plural, name, cluster, project=project)
            assert explained == allowed, (question, caller)


@settings(deadline=None)
@given(ROLES, BINDINGS)
def test_what_is_explained_in_a_cluster_is_what_its_rbac_says_to_the_groups(roles, bindings):
    moment = facts(roles, bindings)
    for caller in CALLERS:
        ids = frozenset(caller.principal_ids)
        for cluster in CLUSTERS:
            for namespace in ("shop", "other"):
                for verb in ("get", "update"):
                    for resource in ("pods", "secrets"):
                        question = Question(verb, "", resource, "x", cluster.name, namespace)
                        explained = any(True for _ in find_ways(moment, question, ids))
                        allowed = inside(moment.grants, caller, cluster, verb, resource, "x", namespace)
                        assert explained == allowed, (question, caller)


@settings(deadline=None)
@given(ROLES, BINDINGS)
def test_every_explained_binding_is_needed_for_its_way(roles, bindings):
    """Taken away, its way is gone, and no other way with it."""
    moment = facts(roles, bindings)
    question = Question("get", "", "secrets", "", "a")
    ways = set(map(told, find_ways(moment, question)))
    for gone in bindings:
        left = set(map(told, find_ways(explain.change(moment, remove=[gone.name]), question)))
        assert left == {way for way in ways if way[0] != gone.name}


def told(way):
    return way.binding.name, way.place, way.rights, way.inherits, way.only_names, way.how


READER = made.role("reader", "cluster", rules=[made.rule("get list", "secrets")])
HEIR = made.role("heir", "cluster", rules=[made.rule("get", "pods")], inherits=["middle"])
MIDDLE = made.role("middle", "cluster", inherits=["reader"])


def test_the_chain_names_binding_role_and_what_it_inherits():
    moment = facts([READER, HEIR, MIDDLE], [made.binding(ADA, "heir", name="b", cluster="a")])
    (way,) = find_ways(moment, Question("get", "", "secrets", "db", "a", "shop"))
    assert told(way) == ("b", "cluster a", ("get secrets",), ("heir", "middle", "reader"), (), "")


def test_an_expired_binding_and_one_of_an_earlier_cluster_or_project_explain_nothing():
    role = made.role("member", "project", rules=[made.rule("get", "secrets")])
    bindings = [
        made.binding(ADA, "reader", name="over", cluster="a", until=made.BEGIN - timedelta(seconds=1)),
        made.binding(ADA, "reader", name="earlier", cluster="a", uid="another"),
        made.binding(ADA, "member", name="before", project="p", created=made.BEGIN - timedelta(days=1)),
        made.binding(ADA, "member", name="counts", project="p"),
    ]
    ways = find_ways(facts([READER, role], bindings), Question("get", "", "secrets", "", "a"))
    assert [(way.binding.name, way.place) for way in ways] == [("counts", "project p")]


def test_a_role_by_labels_counts_where_the_labels_are_and_says_so():
    bindings = [made.binding(ADA, "reader", name="by", labels={"env": "prod"})]
    moment = facts([READER], bindings)
    for cluster, places in (("a", ["clusters with env=prod"]), ("b", []), ("", ["clusters with env=prod"])):
        assert [w.place for w in find_ways(moment, Question("get", "", "secrets", "", cluster))] == places


def test_a_right_for_some_names_says_which():
    role = made.role("one", "cluster", rules=[made.rule("get", "secrets", "db", "web")])
    moment = facts([role], [made.binding(ADA, "one", cluster="a")])
    (way,) = find_ways(moment, Question("get", "", "secrets", "", "a"))
    assert way.only_names == ("db", "web")
    assert [w.only_names for w in find_ways(moment, Question("get", "", "secrets", "db", "a"))] == [()]
    assert not list(find_ways(moment, Question("get", "", "secrets", "other", "a")))


@pytest.mark.parametrize(
    ("rule", "how"),
    [
        (made.rule("get", "secrets"), ""),
        (made.rule("patch", "secrets"), ""),
        (made.rule("create", "pods"), "runs pods that mount it"),
        (made.rule("patch", "deployments", group="apps"), "runs pods that mount it"),
        (made.rule("create", "jobs", group="batch"), "runs pods that mount it"),
        (made.rule("create", "pods/exec"), "enters pods that hold it"),
        (made.rule("update", "pods/ephemeralcontainers"), "enters pods that hold it"),
        (made.rule("create", "nodes/proxy"), "enters pods through their node"),
        (made.rule("create", "serviceaccounts/token"), "takes a service account's token"),
        (made.rule("impersonate", "users"), "acts as somebody else"),
        (made.rule("bind", "clusterroles", group="rbac.authorization.k8s.io"), "gives itself a role"),
        (made.rule("escalate", "roles", group="rbac.authorization.k8s.io"), "gives itself a role"),
        (made.rule("create", "mutatingwebhookconfigurations", group="admissionregistration.k8s.io"), "sees or changes what others write"),
        (made.rule("get", "pods"), None),
        (made.rule("delete", "secrets"), None),
        (made.rule("create", "secrets"), None),
        (made.rule("patch", "deployments"), None),
    ],
)  # fmt: skip
def test_the_ways_to_a_secret_are_told_apart(rule, how):
    role = made.role("r", "cluster", rules=[rule])
    ways = find_ways(
        facts([role], [made.binding(ADA, "r", cluster="a")]), Question("reach", "", "secrets", "db", "a", "shop")
    )
    assert [way.how for way in ways] == ([] if how is None else [how])


def test_who_reads_needs_no_way_round_and_a_project_gives_nothing_outside_namespaces():
    everything = made.role("everything", "cluster", rules=[made.rule("*", "*", group="*")])
    project = made.role(
        "project", "project", rules=[made.rule("create impersonate", "nodes/proxy users serviceaccounts")]
    )
    moment = facts(
        [everything, project], [made.binding(ADA, "everything", cluster="a"), made.binding(BOB, "project", project="p")]
    )
    ways = list(find_ways(moment, Question("reach", "", "secrets", "", "a", "shop")))
    assert [(way.binding.principal, way.how, way.rights) for way in ways] == [
        (ADA.status.principal_id, "", ("get secrets", "list secrets", "patch secrets", "watch secrets")),
        (BOB.status.principal_id, "acts as somebody else", ("impersonate serviceaccounts",)),
    ]
    assert [w.binding.role for w in find_ways(moment, Question("reach", "", "secrets", "", "a", "other"))] == [
        "everything"
    ]


def test_who_reads_some_secrets_may_come_to_the_others_in_a_roundabout_way():
    role = made.role("r", "cluster", rules=[made.rule("get", "secrets", "db"), made.rule("create", "pods")])
    moment = facts([role], [made.binding(ADA, "r", cluster="a")])
    ways = [(w.how, w.only_names) for w in find_ways(moment, Question("reach", "", "secrets", "", "a"))]
    assert ways == [("", ("db",)), ("runs pods that mount it", ())]


def test_what_would_change_is_what_a_hub_with_the_change_says():
    moment = facts([READER, HEIR, MIDDLE], [made.binding(ADA, "reader", name="old", cluster="a")])
    added = made.binding(BOB, "heir", name="new", cluster="b")
    changed = explain.change(moment, [bound_role(added)], ["old"])
    question = Question("get", "", "secrets")
    assert [w.binding.name for w in find_ways(moment, question)] == ["old"]
    assert [(w.binding.name, w.place) for w in find_ways(changed, question)] == [("new", "cluster b")]
    wider = explain.change(moment, roles=[made.role("reader", "cluster", rules=[made.rule("get", "secrets pods")])])
    assert explain.diff_roles(moment, wider) == {
        name: (["get pods"], ["list secrets"]) for name in ("middle", "reader")
    } | {"heir": ([], ["list secrets"])}


def test_ten_thousand_users_are_reviewed_within_a_second():
    people = [made.user(f"u{i}") for i in range(10_000)]
    clusters = [made.cluster(f"c{i}") for i in range(100)]
    bindings = [made.binding(p, "heir", name=f"b{i}", cluster=f"c{i % 100}") for i, p in enumerate(people)]
    bindings += [made.binding(f"ldap:group:g{i}", "reader", name=f"g{i}", cluster=f"c{i % 100}") for i in range(10_000)]
    moment = facts([READER, HEIR, MIDDLE], bindings, clusters=clusters, users=people, projects=[], namespaces={})
    began = time.process_time()
    everybody = list(find_ways(moment, Question("reach", "", "secrets", "db")))
    members = explain.members_by_principal(moment.grants)
    assert time.process_time() - began < 1.0
    assert len(everybody) == 20_000
    assert len(members) == 10_000


def test_the_members_of_a_principal_are_those_who_may_call():
    ldap = made.user("cid")
    away = made.user("eve", enabled=False)
    moment = facts([], [], users=[ADA, ldap, away])
    fact = replace(moment.grants.users["cid"], group_ids=("ldap:group:g", "ldap:user:cid"))
    grants = replace(
        moment.grants, users={**moment.grants.users, "cid": fact}, local_groups={ADA.uid: ("local:group:1",)}
    )
    assert explain.members_by_principal(grants) == {
        "local:user:uid-ada": ["ada"], "local:user:uid-cid": ["cid"], "ldap:group:g": ["cid"], "ldap:user:cid": ["cid"],
        "local:group:1": ["ada"],
    }  # fmt: skip
