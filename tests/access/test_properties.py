"""What must hold for every set of roles and bindings, not only for those that somebody thought of."""

from __future__ import annotations

import random
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from libs.common.access.grants import compile_grants
from libs.common.access.lasting import find_lacking_of_user
from libs.common.resources.access import BindingScope
from tests.access import made

PEOPLE = [made.user(n) for n in ("ada", "bob")]
CLUSTERS = [made.cluster(n) for n in ("a", "b")]
PROJECTS = [made.project("p", "a"), made.project("q", "a", "b")]
VERBS = st.sampled_from(["get", "list", "update", "delete", "*"])
HUB = st.lists(
    st.builds(made.hub_rule, VERBS, st.sampled_from(["clusters", "nodes", "users", "projects", "*"])), max_size=2
)
RULES = st.lists(st.builds(made.rule, VERBS, st.sampled_from(["pods", "secrets", "*"])), max_size=2)
ROLES = st.tuples(
    *[
        st.builds(
            lambda rules, hub, inherits, n=name: made.role(n, n.split("-")[0], rules=rules, hub=hub, inherits=inherits),
            RULES, HUB, st.lists(st.sampled_from(["global-1", "cluster-1", "cluster-2", "project-1"]), max_size=1),
        )
        for name in ("global-1", "cluster-1", "cluster-2", "project-1")
    ]
)  # fmt: skip
SCOPES = st.sampled_from([{"everywhere": True}, {"cluster": "a"}, {"cluster": "b"}, {"project": "p"}, {"project": "q"}])
BINDINGS = st.lists(
    st.builds(
        lambda who, role, scope, until: made.binding(who, role, until=until and made.BEGIN + timedelta(seconds=until), **scope),
        st.sampled_from([*PEOPLE, "ldap:group:g1"]),
        st.sampled_from(["global-1", "cluster-1", "cluster-2", "project-1", "unknown"]), SCOPES,
        st.sampled_from([None, -5, 5]),
    ),
    max_size=6, unique_by=lambda b: b.name,
)  # fmt: skip
QUESTIONS = [
    (verb, plural, name, cluster, project)
    for verb in ("get", "update", "delete")
    for plural, name in (("users", "x"), ("clusters", "a"), ("clusters", "b"), ("nodes", "n"), ("projects", "p"))
    for cluster in ("", "a", "b")
    for project in ("", "p")
]
CALLERS = [made.caller(PEOPLE[0]), made.caller(PEOPLE[1], "ldap:group:g1")]


def compiled(roles, bindings, clusters=CLUSTERS, users=PEOPLE, projects=PROJECTS):
    return compile_grants(roles, bindings, clusters, users, made.BEGIN, projects)


def rights(grants, caller):
    """Everything that can be asked of a snapshot about one caller, as a set."""
    held = {q for q in QUESTIONS if grants.is_allowed(caller, q[0], q[1], q[2], q[3], project=q[4])}
    groups = {g for c in CLUSTERS for g in grants.synthetic_groups(caller, c.name, c.uid)}
    return held | groups


@given(ROLES, BINDINGS, st.randoms())
def test_the_snapshot_does_not_depend_on_the_order_of_its_input(roles, bindings, rng: random.Random):
    def mixed(items):
        items = list(items)
        rng.shuffle(items)
        return items

    shuffled = compiled(mixed(roles), mixed(bindings), mixed(CLUSTERS), mixed(PEOPLE), mixed(PROJECTS))
    ordered = compiled(roles, bindings)
    assert [rights(ordered, c) for c in CALLERS] == [rights(shuffled, c) for c in CALLERS]
    assert [ordered.rules(c) for c in CALLERS] == [shuffled.rules(c) for c in CALLERS]
    assert ordered.next_expiry == shuffled.next_expiry


@given(ROLES, BINDINGS.filter(bool), st.data())
def test_removing_a_binding_never_adds_a_right(roles, bindings, data):
    gone = data.draw(st.sampled_from(bindings))
    before, after = compiled(roles, bindings), compiled(roles, [b for b in bindings if b is not gone])
    for caller in CALLERS:
        assert rights(after, caller) <= rights(before, caller)


@given(ROLES, BINDINGS)
def test_bindings_to_a_cluster_are_nothing_in_another(roles, bindings):
    """Whatever is bound in cluster a alone, the rights in cluster b are those of somebody without bindings."""
    only_a = [b for b in bindings if b.spec.scope.cluster == "a"]
    grants, empty = compiled(roles, only_a), compiled(roles, [])
    b = CLUSTERS[1]
    for caller in CALLERS:
        assert grants.synthetic_groups(caller, b.name, b.uid) == ()
        for verb, plural, name, cluster, _ in QUESTIONS:
            if cluster == "b":
                wanted = empty.is_allowed(caller, verb, plural, name, cluster)
                assert grants.is_allowed(caller, verb, plural, name, cluster) == wanted


@given(ROLES, BINDINGS)
def test_a_cluster_made_again_inherits_nothing(roles, bindings):
    of_clusters = [b for b in bindings if b.spec.scope.cluster]
    again = [made.cluster(c.name, f"{c.uid}-again") for c in CLUSTERS]
    grants = compiled(roles, of_clusters, clusters=again, projects=[])
    for caller in CALLERS:
        assert all(grants.synthetic_groups(caller, c.name, c.uid) == () for c in again)
        assert grants.visible_clusters(caller) == set()


@given(ROLES, BINDINGS)
def test_a_user_made_again_inherits_nothing(roles, bindings):
    again = made.user("ada", "another-uid")
    bare, grants = compiled(roles, [], users=[again]), compiled(roles, bindings, users=[again])
    assert rights(grants, made.caller(again)) == rights(bare, made.caller(again))
    assert rights(grants, made.caller(PEOPLE[0])) == set(), "the old person's tokens are worth nothing"


@given(ROLES, BINDINGS)
def test_a_project_made_again_inherits_nothing(roles, bindings):
    of_projects = [b for b in bindings if b.spec.scope.project]
    again = [made.project(p.name, "a", "b", created=made.BEGIN + timedelta(seconds=1)) for p in PROJECTS]
    grants, bare = compiled(roles, of_projects, projects=again), compiled(roles, [], projects=again)
    for caller in CALLERS:
        assert rights(grants, caller) == rights(bare, caller)


@given(ROLES, BINDINGS, st.sampled_from(["global-1", "cluster-1", "cluster-2", "project-1"]), SCOPES)
def test_who_covers_a_role_gains_nothing_by_receiving_it(roles, bindings, role_name, scope):
    """Grantee ⊆ grantor: if a giver covers a role in a scope, giving it to the giver changes no answer."""
    grants = compiled(roles, bindings)
    role = next(r for r in roles if r.name == role_name)
    wanted = BindingScope(all=True) if scope.get("everywhere") else BindingScope(**scope)
    for caller, who in zip(CALLERS, PEOPLE, strict=True):
        if grants.covers(caller, role, wanted):
            continue
        given_too = compiled(roles, [*bindings, made.binding(who, role_name, name="extra", **scope)])
        before = {q for q in QUESTIONS if grants.is_allowed(caller, q[0], q[1], q[2], q[3], project=q[4])}
        after = {q for q in QUESTIONS if given_too.is_allowed(caller, q[0], q[1], q[2], q[3], project=q[4])}
        seeing = {q for q in after if q[0] == "get" and q[1] == "clusters"}  # membership itself shows the cluster
        assert after - seeing <= before


@given(ROLES, BINDINGS)
def test_everybody_covers_themselves(roles, bindings):
    grants = compiled(roles, bindings)
    for caller, who in zip(CALLERS, PEOPLE, strict=True):
        assert find_lacking_of_user(grants, caller, who.name, bindings, made.BEGIN) == []
