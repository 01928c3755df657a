"""What policies decide, as a table; and that no broken policy hides anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.audit.policy import Decision, Facts, Policy
from libs.common.resources.audit import AuditPolicy

TABLE = yaml.safe_load((Path(__file__).parent / "policies.yaml").read_text())
CASES = [
    pytest.param(part["policies"], call, id=f"{number}-{index}")
    for number, part in enumerate(TABLE)
    for index, call in enumerate(part["calls"])
]


def make_policy(given: dict) -> AuditPolicy:
    spec = {"rules": [{**rule, "level": "None"} if rule.get("level", 0) is None else rule for rule in given["rules"]]}
    if "priority" in given:
        spec["priority"] = given["priority"]
    return AuditPolicy.model_validate({"metadata": {"name": given["name"]}, "spec": spec})


def make_facts(given: dict) -> Facts:
    return Facts(**{**given, "groups": frozenset(given.get("groups", ()))})


@pytest.mark.parametrize(("policies", "call"), CASES)
def test_the_table_of_decisions_holds(policies, call):
    policy = Policy(make_policy(p) for p in policies)
    for _ in range(2):  # the second answer comes from memory
        decision = policy.decide(make_facts(call["facts"]))
        assert decision.level == (call["level"] or "None")
        assert decision.record_sessions is call.get("record", decision.record_sessions)
        assert decision.policy == call.get("policy", decision.policy)
        assert decision.named is call.get("named", decision.named)


def test_a_broken_policy_shows_everything_that_later_ones_would_hide():
    hiding = make_policy({"name": "z", "rules": [{"level": "None"}]})
    facts = Facts("get", cluster="c", resource="secrets")
    assert Policy([hiding]).decide(facts).level == "None"
    assert Policy([hiding], broken=[(0, "unreadable")]).decide(facts).level == "Metadata"


def test_a_broken_policy_may_have_asked_for_recordings_so_all_is_recorded():
    facts = Facts("create", cluster="c", resource="pods", subresource="exec")
    assert Policy([]).decide(facts).record_sessions is False
    assert Policy([], broken=[(0, "unreadable")]).decide(facts).record_sessions is True


def test_input_is_recorded_where_the_rule_that_decides_about_recording_says_so():
    rules = [
        {"level": "Metadata"},
        {"recordSessions": False, "users": ["a"]},
        {"recordSessions": True, "users": ["b"]},
        {"recordSessions": True, "recordInput": True},
    ]
    policy = Policy([make_policy({"name": "p", "rules": rules})])
    decided = {user: policy.decide(Facts("create", user=user, cluster="c", resource="pods")) for user in "abc"}
    assert {user: (d.record_sessions, d.record_input) for user, d in decided.items()} == {
        "a": (False, False), "b": (True, False), "c": (True, True),
    }  # fmt: skip


def test_omitted_stages_come_with_the_level():
    policy = Policy([make_policy({"name": "p", "rules": [{"level": "Metadata", "omitStages": ["ResponseStarted"]}]})])
    assert policy.decide(Facts("watch", cluster="c", resource="pods")).omit_stages == {"ResponseStarted"}


words = st.sampled_from(["", "a", "b", "c"])
facts = st.builds(
    Facts, verb=st.sampled_from(["get", "list", "create"]), user=words, groups=st.frozensets(words, max_size=2), cluster=words,
    api_group=words, resource=words, subresource=words, namespace=words, name=words, path=st.sampled_from(["/a", "/b/c"]),
)  # fmt: skip
lists = st.lists(st.sampled_from(["*", "a", "b"]), max_size=2)
rules = st.fixed_dictionaries(
    {
        "level": st.sampled_from(["None", "Metadata", "Request", "RequestResponse"]),
        "users": lists, "groups": lists, "clusters": lists, "namespaces": lists,
        "resources": st.lists(
            st.fixed_dictionaries({"group": words, "resources": st.lists(st.sampled_from(["a", "a/b", "*/b", "*"]), max_size=2)}),
            max_size=2,
        ),
    }
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(rules, min_size=1, max_size=4), st.lists(facts, min_size=1, max_size=12))
def test_what_is_remembered_is_what_would_be_decided_anew(rules, calls):
    made = make_policy({"name": "p", "rules": rules})
    kept = Policy([made])
    for call in calls + calls:
        assert kept.decide(call) == Policy([made]).decide(call)
        assert isinstance(kept.decide(call), Decision)
