from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.access.roles import find_cycle, resolve_roles
from libs.common.access.rules import RuleSet
from libs.common.resources.access import PolicyRule
from tests.access import made


def rules(*written):
    return [PolicyRule.model_validate(w) for w in written]


@pytest.mark.parametrize(
    ("verbs", "resources", "asked", "allowed"),
    [
        ("get", "pods", ("get", "", "pods", "", "web"), True),
        ("get", "pods", ("list", "", "pods", "", ""), False),
        ("get", "pods", ("get", "apps", "pods", "", ""), False),
        ("get", "pods", ("get", "", "pods", "log", ""), False),
        ("get", "pods/log", ("get", "", "pods", "log", "web"), True),
        ("get", "*", ("get", "", "pods", "log", ""), True),
        ("update", "*/scale", ("update", "", "deployments", "scale", "web"), True),
        ("update", "*/scale", ("update", "", "deployments", "", "web"), False),
        ("*", "pods", ("escalate", "", "pods", "", ""), True),
    ],
)
def test_matching_is_that_of_kubernetes(verbs, resources, asked, allowed):
    assert RuleSet(rules(made.rule(verbs, resources))).allows(*asked) is allowed


def test_a_rule_with_names_never_matches_a_request_without_one():
    held = RuleSet(rules(made.rule("get list", "secrets", "db")))
    assert held.allows("get", "", "secrets", name="db")
    assert not held.allows("get", "", "secrets", name="other")
    assert not held.allows("list", "", "secrets")


def test_a_rule_without_groups_gives_nothing():
    assert not RuleSet(rules({"verbs": ["get"], "resources": ["pods"]})).allows("get", "", "pods")


def test_names_of_several_rules_add_up():
    held = RuleSet(rules(made.rule("get", "secrets", "a"), made.rule("*", "secrets", "b")))
    assert held.find_lacking(rules(made.rule("get", "secrets", "a", "b"))) == []
    assert held.find_lacking(rules(made.rule("get", "secrets", "a", "c"))) == ['get secrets "c"']
    assert held.find_lacking(rules(made.rule("get", "secrets"))) == ["get secrets"]


def test_a_wildcard_is_lacking_however_much_is_listed():
    held = RuleSet(rules(made.rule("get list watch create update patch delete", "pods secrets")))
    assert held.find_lacking(rules(made.rule("*", "pods"))) == ["* pods"]
    assert held.find_lacking(rules(made.rule("get", "*"))) == ["get *"]
    assert held.find_lacking(rules({"verbs": ["get"], "apiGroups": ["*"], "resources": ["pods"]})) == ["get pods.*"]


def test_urls_are_covered_by_prefix():
    held = RuleSet(rules({"verbs": ["get"], "nonResourceURLs": ["/healthz/*", "/version"]}))
    assert held.find_lacking(rules({"verbs": ["get"], "nonResourceURLs": ["/healthz/etcd", "/version"]})) == []
    assert held.find_lacking(rules({"verbs": ["get"], "nonResourceURLs": ["/metrics"]})) == ["get URL /metrics"]


WORDS = st.sampled_from(["get", "list", "update", "*"])
THINGS = st.sampled_from(["pods", "pods/log", "secrets", "*/log", "*"])
RULE = st.builds(
    lambda v, g, r, n: PolicyRule(verbs=v, api_groups=g, resources=r, resource_names=n),
    st.lists(WORDS, min_size=1, max_size=2),
    st.lists(st.sampled_from(["", "apps", "*"]), max_size=2),
    st.lists(THINGS, max_size=2),
    st.lists(st.sampled_from(["a", "b"]), max_size=1),
)
REQUESTS = [
    (verb, group, resource, sub, name)
    for verb in ("get", "list", "update", "delete")
    for group in ("", "apps", "batch")
    for resource in ("pods", "secrets", "nodes")
    for sub in ("", "log")
    for name in ("", "a", "c")
]


@given(st.lists(RULE, max_size=4), st.lists(RULE, max_size=4))
def test_what_is_covered_is_allowed_to_the_one_who_covers(held, wanted):
    giver, receiver = RuleSet(held), RuleSet(wanted)
    if not giver.find_lacking(wanted):
        assert all(giver.allows(*r) for r in REQUESTS if receiver.allows(*r))


@given(st.lists(RULE, max_size=5))
def test_everybody_covers_what_they_hold(held):
    assert RuleSet(held).find_lacking(held) == []


def test_inheritance_adds_the_rights_of_all_ancestors_and_stops_at_cycles():
    a = made.role("a", "cluster", rules=[made.rule("get", "pods")], inherits=["b"])
    b = made.role("b", "cluster", rules=[made.rule("get", "secrets")], inherits=["a", "gone"])
    resolved = resolve_roles([a, b])
    assert resolved["a"].rule_set.allows("get", "", "secrets")
    assert resolved["b"].rule_set.allows("get", "", "pods")
    assert find_cycle(a, {"a": a, "b": b}) == ["a", "b", "a"]
    assert find_cycle(made.role("c", "cluster", inherits=["d"]), {"a": a, "b": b}) == []


def test_a_parent_of_another_scope_adds_nothing():
    child = made.role("child", "cluster", inherits=["top"])
    top = made.role("top", "global", hub=[made.hub_rule("*", "*")])
    assert not resolve_roles([child, top])["child"].hub_set.allows("get", "management.herdsman.dev", "users")


def test_rules_of_a_global_role_count_nowhere():
    assert resolve_roles([made.role("g", "global", rules=[made.rule("*", "*")])])["g"].rules == ()
