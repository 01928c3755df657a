"""The steps lead from anything to what should be, also when cut, and never hold an old and a new right together."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.kube.objects import Ref, ref_of
from services.agent.claims import Release
from services.agent.diff import Apply, Delete, Step, diff_objects, diff_parts
from services.agent.owned import (
    AGENT_PART,
    APPLIED,
    MANAGED_BY,
    PART,
    RBAC,
    RBAC_GROUP,
    find_refusal,
    is_owned,
    mark,
    part_label,
)

Cluster = dict[Ref, dict[str, Any]]

ROLE_NAMES = ["herdsman:a", "herdsman:b", "herdsman:c"]
RULES = [{"apiGroups": [""], "resources": [r], "verbs": ["get"]} for r in ("pods", "secrets", "nodes")]
GROUPS = [{"apiGroup": RBAC_GROUP, "kind": "Group", "name": f"herdsman:g{n}"} for n in range(3)]


def role(name: str, rules: list[Any]) -> dict[str, Any]:
    return {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}


def binding(name: str, to: str, subjects: list[Any]) -> dict[str, Any]:
    ref = {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": to}
    return {
        "apiVersion": RBAC,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": ref,
        "subjects": subjects,
    }


def config(name: str, data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "x"}, "data": {"k": data}}


subsets = lambda items: st.lists(st.sampled_from(items), unique_by=repr, max_size=len(items))  # noqa: E731
roles = st.builds(role, st.sampled_from(ROLE_NAMES), subsets(RULES))
bindings = st.builds(binding, st.sampled_from(ROLE_NAMES), st.sampled_from(ROLE_NAMES), subsets(GROUPS))
configs = st.builds(config, st.sampled_from(["m", "n"]), st.sampled_from(["1", "2"]))
objects = st.lists(st.one_of(roles, bindings, configs), max_size=8, unique_by=lambda o: str(ref_of(o)))
desired_sets = st.dictionaries(st.sampled_from(["roles", "projects/p", "workloads/w"]), objects, max_size=3)


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    cluster: Cluster = {}
    for document in draw(objects):
        marked = mark(document, draw(st.sampled_from(["roles", "projects/p", "gone"])))
        if draw(st.booleans()):
            marked["metadata"]["annotations"] = {}
        marked["metadata"]["uid"] = "u"
        cluster[ref_of(document)] = marked
    return cluster


def take(cluster: Cluster, step: Step) -> None:
    """What an API server does: a role reference can't change, lists of rules and subjects are replaced as wholes."""
    if isinstance(step, Delete):
        del cluster[step.ref]
        return
    assert isinstance(step, Apply)
    before = cluster.get(step.ref)
    assert before is None or before.get("roleRef") == step.document.get("roleRef"), "the role of a binding is immutable"
    cluster[step.ref] = {**(before or {}), **copy.deepcopy(step.document)}
    cluster[step.ref]["metadata"]["uid"] = "u"


def rights(cluster: Cluster) -> set[tuple[str, str]]:
    rules = {ref.name: document["rules"] for ref, document in cluster.items() if ref.kind == "ClusterRole"}
    return {
        (subject["name"], repr(rule))
        for ref, document in cluster.items()
        if ref.kind == "ClusterRoleBinding"
        for subject in document["subjects"]
        for rule in rules.get(document["roleRef"]["name"], ())
    }


@given(desired_sets, clusters(), st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_desired_is_reached_from_anything_also_when_cut_after_any_write(
    desired: dict[str, list[dict[str, Any]]], cluster: Cluster, cut: int
) -> None:
    for step in diff_parts(desired, cluster)[:cut]:
        take(cluster, step)
    for step in diff_parts(desired, cluster):
        take(cluster, step)
    assert diff_parts(desired, cluster) == []
    wanted = {ref_of(o): o for part in sorted(desired, reverse=True) for o in desired[part]}
    assert cluster.keys() == wanted.keys()
    for ref, document in wanted.items():
        for key in ("rules", "subjects", "roleRef", "data"):
            assert cluster[ref].get(key) == document.get(key)
        assert is_owned(cluster[ref])


@given(desired_sets, clusters())
@settings(max_examples=300, deadline=None)
def test_no_right_is_added_before_every_right_that_goes_is_gone(
    desired: dict[str, list[dict[str, Any]]], cluster: Cluster
) -> None:
    steps = diff_parts(desired, cluster)
    after = copy.deepcopy(cluster)
    for step in steps:
        take(after, step)
    before, final = rights(cluster), rights(after)
    for step in steps:
        take(cluster, step)
        held = rights(cluster)
        assert held <= before | final
        if held - before:
            assert held <= final


@given(desired_sets, clusters())
@settings(max_examples=100, deadline=None)
def test_steps_do_not_depend_on_the_order_of_objects(
    desired: dict[str, list[dict[str, Any]]], cluster: Cluster
) -> None:
    turned = {part: list(reversed(desired[part])) for part in reversed(list(desired))}
    backwards = dict(reversed(list(cluster.items())))
    assert diff_parts(turned, backwards) == diff_parts(desired, cluster)


def test_a_dropped_field_is_noticed_although_every_field_that_is_left_is_as_it_should_be() -> None:
    before = {**config("m", "1"), "immutable": True}
    cluster = {ref_of(before): mark(before, "roles")}
    assert [type(s) for s in diff_parts({"roles": [config("m", "1")]}, cluster)] == [Apply]


def test_drift_is_put_right_and_what_others_added_beside_is_left() -> None:
    wanted = role("herdsman:a", RULES[:1])
    found = mark(wanted, "roles")
    found["metadata"]["labels"]["team"] = "x"
    found["metadata"]["managedBy"] = "y"
    assert diff_parts({"roles": [wanted]}, {ref_of(wanted): found}) == []
    found["rules"] = RULES
    assert [type(s) for s in diff_parts({"roles": [wanted]}, {ref_of(wanted): found})] == [Apply]


def test_removals_begin_with_bindings_and_a_namespace_is_released_last_but_never_deleted() -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}
    documents = [namespace, config("m", "1"), role("herdsman:a", []), binding("herdsman:b", "herdsman:a", [])]
    steps = diff_parts({}, {ref_of(d): mark(d, "gone") for d in documents})
    assert [s.ref.kind for s in steps if isinstance(s, Delete)] == ["ClusterRoleBinding", "ClusterRole", "ConfigMap"]
    assert steps[3:] == [Release("x", "", "gone", (APPLIED, MANAGED_BY, PART))]


def test_what_keeps_a_namespace_in_bounds_comes_before_who_may_work_in_it() -> None:
    bounds = [{"apiVersion": v, "kind": k, "metadata": {"name": "p", "namespace": "x"}}
              for v, k in (("networking.k8s.io/v1", "NetworkPolicy"), ("v1", "LimitRange"), ("v1", "ResourceQuota"))]  # fmt: skip
    bound = {**binding("herdsman:a", "herdsman:a", GROUPS), "kind": "RoleBinding"}
    bound["metadata"] = {"name": "herdsman:a", "namespace": "x"}
    steps = diff_parts({"projects/p": [bound, *bounds]}, {})
    assert [s.ref.kind for s in steps if isinstance(s, Apply)] == [
        "ResourceQuota",
        "LimitRange",
        "NetworkPolicy",
        "RoleBinding",
    ]


def test_what_is_new_does_not_wait_for_what_is_written_again() -> None:
    old, new = config("m", "1"), config("n", "1")
    steps = diff_parts({"b": [old, new]}, {ref_of(old): mark(old, "a")})
    assert [(s.ref.name, s.is_new) for s in steps if isinstance(s, Apply)] == [("n", True), ("m", False)]


def test_a_role_that_somebody_made_gather_other_rules_is_made_again() -> None:
    wanted = role("herdsman:a", RULES[:1])
    found = {**mark(wanted, "roles"), "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}
    found["metadata"]["uid"] = "u"
    assert [type(s) for s in diff_parts({"roles": [wanted]}, {ref_of(wanted): found})] == [Delete, Apply]


def test_a_round_for_some_parts_leaves_the_others_alone_but_takes_over_what_moved() -> None:
    one, two, moved = config("m", "1"), config("n", "1"), config("o", "1")
    desired = {"a": [one], "b": [two, moved]}
    actual = {ref_of(moved): mark(moved, "a")}
    takes, gives = diff_objects(desired, actual, {"a"})
    assert takes == []
    assert [(s.ref.name, s.part, s.is_new) for s in gives if isinstance(s, Apply)] == [
        ("m", "a", True),
        ("o", "b", False),
    ]


def test_one_label_alone_is_not_ours() -> None:
    assert not is_owned({"metadata": {"labels": {MANAGED_BY: "herdsman"}}})
    assert not is_owned({"metadata": {"labels": {PART: "roles"}}})
    assert is_owned({"metadata": {"labels": {MANAGED_BY: "herdsman", PART: AGENT_PART}}})


def test_part_names_that_no_label_can_hold_still_give_one() -> None:
    assert part_label("projects/web") == "projects.web"
    long = part_label("workloads/" + "x" * 80)
    assert long.startswith("h-")
    assert len(long) <= 63
    assert long != part_label("workloads/" + "x" * 81)


def test_the_agent_refuses_bindings_that_only_a_faulty_hub_would_ask_for() -> None:
    assert find_refusal(binding("herdsman:a", "herdsman:b", GROUPS)) == ""
    assert "cluster-admin" in find_refusal(binding("herdsman:a", "cluster-admin", GROUPS))
    local = binding("herdsman:a", "herdsman:a", GROUPS)
    local["roleRef"] = {**local["roleRef"], "kind": "Role"}
    assert "Role" in find_refusal(local)
    for namespace in ("kube-system", "herdsman-system"):
        inside = {**binding("herdsman:a", "herdsman:a", GROUPS), "kind": "RoleBinding"}
        inside["metadata"] = {"name": "herdsman:a", "namespace": namespace}
        assert namespace in find_refusal(inside)
    assert "claimed" in find_refusal({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})
    masters = {"apiGroup": RBAC_GROUP, "kind": "Group", "name": "system:masters"}
    assert "system:masters" in find_refusal(binding("herdsman:a", "herdsman:a", [masters]))
    assert "User" in find_refusal(binding("herdsman:a", "herdsman:a", [{"kind": "User", "name": "herdsman:eve"}]))
    assert "cluster-admin" in find_refusal(role("cluster-admin", []))
    assert find_refusal(config("m", "1")) == ""


@pytest.mark.parametrize("kind", ["NetworkPolicy", "ResourceQuota", "LimitRange", "Secret", "ConfigMap", "RoleBinding"])
@pytest.mark.parametrize("namespace", ["kube-system", "herdsman-system"])
def test_the_agent_puts_nothing_into_namespaces_of_the_cluster_itself(kind: str, namespace: str) -> None:
    document = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "herdsman:x", "namespace": namespace}}
    assert namespace in find_refusal(document)
    assert find_refusal({**document, "metadata": {"name": "herdsman:x", "namespace": "shop"}}) == ""


def test_what_only_moves_to_another_part_comes_last_and_says_so() -> None:
    moved, changed, tampered = config("a", "1"), config("z", "2"), config("y", "1")
    fields = {"f:metadata": {"f:labels": {f"f:{PART}": {}}}}
    ours = mark(moved, "old")
    ours["metadata"]["managedFields"] = [{"manager": "herdsman", "operation": "Apply", "fieldsV1": fields}]
    theirs = mark(tampered, "old")
    theirs["metadata"]["managedFields"] = [
        {"manager": "herdsman", "operation": "Apply", "fieldsV1": {}},
        {"manager": "kubectl-label", "operation": "Update", "fieldsV1": fields},
    ]
    actual = {ref_of(moved): ours, ref_of(tampered): theirs, ref_of(changed): mark(config("z", "1"), "old")}
    steps = diff_parts({"new": [moved, changed, tampered]}, actual)
    assert [(s.ref.name, s.moved_from) for s in steps if isinstance(s, Apply)] == [("y", ""), ("z", ""), ("a", "old")]
