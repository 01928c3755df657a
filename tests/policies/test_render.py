"""What a cluster holds of a policy, and for which clusters it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from libs.common.kube.objects import content_hash
from libs.common.policies.admission import quote_cel, render_admission
from libs.common.policies.choice import TRIAL, is_chosen
from libs.common.policies.levels import LEVELS, Mode, strictest, wanted_labels
from libs.common.policies.names import CANARY_NAMESPACE
from libs.common.policies.pod_security import render_pod_security
from libs.common.resources.policies import ClusterChoice
from services.agent.claims import is_order
from services.agent.owned import find_refusal
from tests.policies.made import PODS, admission, template

GOLDEN = Path(__file__).with_name("golden_admission.yaml")
AGENT = "kubernetes-admin"


def test_a_policy_is_rendered_as_it_stands() -> None:
    policy = admission(
        generation=3,
        exemptNamespaces=["vault"],
        projects=["shop"],
        variables=[{"name": "names", "expression": "object.metadata.labels"}],
        matchConditions=[{"name": "no-nodes", "expression": "!('system:nodes' in request.userInfo.groups)"}],
    )
    objects = render_admission(policy, AGENT)
    assert objects == yaml.safe_load(GOLDEN.read_text()), yaml.safe_dump(objects, sort_keys=False)
    assert [find_refusal(o) for o in objects if not is_order(o)] == [""] * 6


@pytest.mark.parametrize(("stage", "actions"), [("Audit", ["Warn", "Audit"]), ("Enforce", ["Deny", "Audit"])])
def test_only_what_is_enforced_is_refused(stage: str, actions: list[str]) -> None:
    binding = render_admission(admission(stage=stage), AGENT)[1]
    assert binding["spec"]["validationActions"] == actions


def test_asking_for_a_trial_changes_the_order_alone() -> None:
    first, second = admission(), admission()
    second.metadata.annotations = {TRIAL: "again"}
    before, after = render_admission(first, AGENT), render_admission(second, AGENT)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True] * 6 + [False]


RULES = [
    {"scope": "Cluster"},
    {"resourceNames": ["web"]},
    {"apiVersions": ["v9"]},
    {"apiGroups": ["apps"], "resources": ["*"]},
    {"apiGroups": ["apps"], "resources": ["*", "deployments/scale"], "operations": ["CREATE"]},
    {"resources": ["pods", "pods/exec"], "operations": ["CREATE", "CONNECT"]},
]


@pytest.mark.parametrize("rule", RULES)
def test_whatever_a_trial_may_write_is_kept_to_dry_runs(rule: dict[str, Any]) -> None:
    """A role knows no scope, version or name, and gives subresources with `*`: the guard must not know less than it."""
    rendered = render_admission(admission(matchConstraints={"resourceRules": [{**PODS, **rule}]}), AGENT)
    guard, role = rendered[2], rendered[4]
    judged = guard["spec"]["matchConstraints"]["resourceRules"]
    assert all(r["scope"] == "*" and r["apiVersions"] == ["*"] and "resourceNames" not in r for r in judged)
    for right in role["rules"]:
        for group, resource in [(g, r) for g in right["apiGroups"] for r in right["resources"]]:
            wanted = "*/*" if resource == "*" else resource
            operations = {"CONNECT"} if resource == "*" else set[str]()
            assert any(
                {group} <= set(r["apiGroups"])
                and {wanted} <= set(r["resources"])
                and operations | {"CREATE", "UPDATE", "DELETE"} <= set(r["operations"])
                for r in judged
            ), (group, resource)
    assert guard["spec"]["matchConstraints"]["namespaceSelector"] == {}


def test_no_policy_but_the_guard_answers_where_the_guard_is_asked() -> None:
    rule = {**PODS, "resources": ["configmaps"]}
    policy, _, guard, *_ = render_admission(
        admission(stage="Enforce", matchConstraints={"resourceRules": [rule]}), AGENT
    )
    (exempt,) = policy["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"]
    assert (exempt["operator"], CANARY_NAMESPACE in exempt["values"]) == ("NotIn", True)
    assert guard["spec"]["matchConstraints"]["namespaceSelector"] == {}


def test_a_trial_may_read_nothing_that_is_not_tried() -> None:
    rules = [{**PODS, "resources": ["secrets", "pods"]}, {**PODS, "resources": ["secrets"]}]
    role = render_admission(admission(matchConstraints={"resourceRules": rules}), AGENT)[4]
    assert [(r["resources"], r["verbs"]) for r in role["rules"]] == [
        (["configmaps"], ["create"]),
        (["pods"], ["list", "patch"]),
    ]


@given(st.text(max_size=30))
def test_an_agents_name_cannot_leave_its_quotes(name: str) -> None:
    quoted = quote_cel(name)
    assert quoted[0] == quoted[-1] == '"'
    inside = quoted[1:-1]
    assert not set(inside) & set("\"'\n()|!")
    assert inside.encode().decode("ascii").encode().decode("unicode_escape") == name


NAMES = st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True, max_size=4)


@given(NAMES, st.randoms(use_true_random=False))
def test_rendering_does_not_depend_on_the_order_of_exemptions_and_projects(names: list[str], random: Any) -> None:
    turned = list(names)
    random.shuffle(turned)
    for make, render in ((admission, lambda p: render_admission(p, AGENT)), (template, render_pod_security)):
        one, two = (make(exemptNamespaces=n, projects=n) for n in (names, turned))
        wanted, found = render(one), render(two)
        # The guard's version is of the text as it was written.
        assert content_hash(wanted[:2]) == content_hash(found[:2])


@pytest.mark.parametrize(
    ("choice", "labels", "chosen"),
    [
        ({"global": True}, {}, True),
        ({"names": ["edge"]}, {}, True),
        ({"names": ["west"]}, {}, False),
        ({"selector": {"matchLabels": {"zone": "eu"}}}, {"zone": "eu"}, True),
        ({"selector": {"matchLabels": {"zone": "eu"}}}, {"zone": "us"}, False),
        ({"selector": {}}, {"zone": "eu"}, False),
        ({}, {}, False),
    ],
)
def test_which_clusters_are_meant(choice: dict[str, Any], labels: dict[str, str], chosen: bool) -> None:
    assert is_chosen(ClusterChoice.model_validate(choice), "edge", labels) == chosen


MODES = st.builds(Mode, st.sampled_from(LEVELS), st.sampled_from(["latest", "v1.30", "v1.9"]))


@given(st.lists(MODES, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_strictest_of_several_counts_whatever_their_order(modes: list[Mode], random: Any) -> None:
    turned = list(modes)
    random.shuffle(turned)
    found = strictest(turned)
    assert found == strictest(modes)
    assert found is not None
    assert all(found.rank >= mode.rank for mode in modes)


def order(**spec: Any) -> dict[str, Any]:
    body: dict[str, Any] = render_pod_security(template(**spec))[0]["spec"]
    return body


def test_a_template_in_audit_warns_of_what_it_would_enforce() -> None:
    at_first = wanted_labels([order(warn={"level": "restricted"})], "web")
    assert {k.removeprefix("pod-security.kubernetes.io/"): v for k, v in at_first.items()} == {
        "audit": "baseline", "audit-version": "latest", "warn": "restricted", "warn-version": "latest",
    }  # fmt: skip
    then = wanted_labels([order(stage="Enforce", enforceAtOnce=True)], "web")
    assert then["pod-security.kubernetes.io/enforce"] == "baseline"


def test_exempt_namespaces_the_clusters_own_and_other_projects_are_left_alone() -> None:
    one = order(stage="Enforce", exemptNamespaces=["free"], projects=["shop"])
    governed = {
        n: bool(wanted_labels([one], n, p))
        for n, p in [("web", "shop"), ("free", "shop"), ("kube-system", "shop"), ("x", ""), ("y", "lab")]
    }
    assert governed == {"web": True, "free": False, "kube-system": False, "x": False, "y": False}
