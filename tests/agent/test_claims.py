"""Namespaces of projects: made, adorned, released; never adopted by the way, never deleted; and quantities that mean the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.agent.claims import (
    POD_SECURITY,
    PROJECT,
    PROJECT_UID,
    Adorn,
    Make,
    Plan,
    Release,
    diff_claims,
    find_claim_refusal,
    find_marks,
    parse_claim,
)
from services.agent.owned import AGENT_PART, APPLIED, MANAGED_BY, PART
from services.agent.quantities import normalise

Namespaces = dict[str, dict[str, Any]]


def claim(name: str, project: str = "web", uid: str = "u1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "management.herdsman.dev/v1",
        "kind": "NamespaceClaim",
        "metadata": {"name": name},
        "spec": {"project": project, "projectUid": uid, **spec},
    }


def namespace(uid: str = "n1", labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None) -> Any:
    return {"metadata": {"name": "x", "uid": uid, "labels": labels or {}, "annotations": annotations or {}}}


def named(name: str, found: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {**copy.deepcopy(found["metadata"]), "name": name}}


def plan(*documents: dict[str, Any], there: Namespaces, **more: Any) -> Plan:
    return diff_claims([parse_claim(d, f"projects/{d['spec']['project']}") for d in documents], there, **more)


def take(namespaces: Namespaces, made: Plan) -> None:
    """What an API server does with the steps; what we applied before and do not apply now is gone."""
    for step in made.steps:
        if isinstance(step, Make):
            namespaces[step.claim.namespace] = named(step.claim.namespace, namespace("new"))
            adorned(namespaces[step.claim.namespace], step.claim.document)
        elif isinstance(step, Adorn):
            assert namespaces[step.claim.namespace]["metadata"]["uid"] == step.uid
            adorned(namespaces[step.claim.namespace], step.claim.document)
        else:
            metadata = namespaces[step.namespace]["metadata"]
            metadata["labels"] = {k: v for k, v in metadata["labels"].items() if k not in (*step.marks, "team")}
            metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k not in step.marks}


def adorned(found: dict[str, Any], document: dict[str, Any]) -> None:
    for field in ("labels", "annotations"):
        kept = {k: v for k, v in found["metadata"][field].items() if k not in ("team", POD_SECURITY)}
        found["metadata"][field] = {**kept, **document["metadata"][field]}


def test_a_namespace_that_is_there_is_adorned_with_the_label_the_uid_and_what_is_kept_on_it() -> None:
    wanted = claim("x", podSecurity="baseline", labels={"team": "a"}, annotations={"example.com/mail": "b"})
    there = {"x": namespace(labels={"own": "stays"})}
    first = plan(wanted, there=there)
    assert [type(s) for s in first.steps] == [Adorn]
    take(there, first)
    metadata = there["x"]["metadata"]
    assert metadata["labels"] == {"own": "stays", "team": "a", PROJECT: "web", POD_SECURITY: "baseline"}
    assert metadata["annotations"].keys() == {"example.com/mail", PROJECT_UID, APPLIED}
    assert MANAGED_BY not in metadata["labels"], "people's Helm and other tools use that one"
    assert plan(wanted, there=there).steps == []
    # Somebody takes a label away, or the project wants one less.
    del metadata["labels"][PROJECT]
    assert [type(s) for s in plan(wanted, there=there).steps] == [Adorn]
    assert [type(s) for s in plan(claim("x"), there=there).steps] == [Adorn]


def test_one_that_is_not_there_is_made_only_where_the_project_says_so() -> None:
    made = plan(claim("x"), claim("y", create=True), there={})
    assert [type(s) for s in made.steps] == [Make]
    assert made.absent == {"x"}
    assert made.blocked.keys() == {"x"}


@pytest.mark.parametrize(
    ("annotations", "labels", "held"),
    [({}, {}, set()), ({PROJECT_UID: "earlier project of the name"}, {PROJECT: "web"}, {"x"}), ({}, {PROJECT: "other"}, set())],
)  # fmt: skip
def test_one_that_was_there_before_is_never_taken_for_one_that_was_to_be_made(
    annotations: dict[str, str], labels: dict[str, str], held: set[str]
) -> None:
    made = plan(claim("x", create=True), there={"x": namespace("n", labels, annotations)}, held=held)
    assert made.steps == []
    assert "left alone" in made.blocked["x"]


@pytest.mark.parametrize(
    ("annotations", "labels", "held"),
    [({PROJECT_UID: "u1"}, {}, set()), ({}, {PROJECT: "web"}, set()), ({}, {}, {"x"})],
)
def test_one_that_was_made_for_the_project_stays_its_own_whatever_mark_somebody_takes(
    annotations: dict[str, str], labels: dict[str, str], held: set[str]
) -> None:
    made = plan(claim("x", create=True), there={"x": namespace("n", labels, annotations)}, held=held)
    assert [type(s) for s in made.steps] == [Adorn]


def test_one_that_nobody_claims_is_released_and_one_that_is_going_is_waited_for() -> None:
    going = namespace("n")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    there = {"x": namespace("a", {PROJECT: "web"}, {PROJECT_UID: "u1"}), "y": namespace("b"), "z": going}
    made = plan(claim("z"), there=there)
    assert made.steps == [Release("x", "a", "projects.web", (PROJECT, PROJECT_UID))]
    assert made.absent == {"z"}
    assert plan(claim("z"), there=there, claimed={"x"}).steps == []


def test_marks_of_an_agent_that_owned_namespaces_are_released_too() -> None:
    owned = namespace("a", {MANAGED_BY: "herdsman", PART: "projects.web"}, {APPLIED: "h"})
    assert find_marks(owned) == (APPLIED, MANAGED_BY, PART)
    assert find_marks(namespace("a", {MANAGED_BY: "Helm"})) == ()
    assert find_marks(namespace("a", {MANAGED_BY: "herdsman", PART: AGENT_PART})) == (), "it goes last, and by itself"


names = st.sampled_from(["a", "b", "c"])
claims = st.lists(
    st.builds(
        claim, names, st.sampled_from(["web", "db"]), st.sampled_from(["u1", "u2"]),
        create=st.booleans(), labels=st.sampled_from([{}, {"team": "t"}]),
    ), max_size=4, unique_by=lambda c: c["metadata"]["name"],
)  # fmt: skip
marks = st.builds(
    namespace, st.just("n"), st.sampled_from([{}, {PROJECT: "web"}, {PROJECT: "db", "team": "t"}, {"own": "1"}]),
    st.sampled_from([{}, {PROJECT_UID: "u1"}, {PROJECT_UID: "u2", APPLIED: "old"}]),
)  # fmt: skip


@given(claims, st.dictionaries(names, marks, max_size=3), st.integers(0, 4))
@settings(max_examples=300, deadline=None)
def test_what_is_claimed_is_reached_from_anything_also_when_cut_and_nothing_is_ever_deleted(
    documents: list[dict[str, Any]], there: Namespaces, cut: int
) -> None:
    there = {name: named(name, found) for name, found in there.items()}
    before = {name: found["metadata"]["uid"] for name, found in there.items()}
    first = plan(*documents, there=there)
    take(there, Plan(steps=first.steps[:cut]))
    take(there, plan(*documents, there=there))
    last = plan(*documents, there=there)
    assert last.steps == []
    for name, uid in before.items():
        assert there[name]["metadata"]["uid"] == uid
    wanted = {d["metadata"]["name"]: d for d in documents if d["metadata"]["name"] not in last.blocked}
    for name, found in there.items():
        labels = found["metadata"]["labels"]
        if name in wanted:
            assert labels[PROJECT] == wanted[name]["spec"]["project"]
        elif name not in last.blocked:
            assert find_marks(found) == ()


@pytest.mark.parametrize(
    "document",
    [
        claim("kube-system"), claim("herdsman-system"), claim("x", uid=""), claim("x", project=""),
        claim("x", labels={POD_SECURITY: "privileged"}), claim("x", annotations={"management.herdsman.dev/project-uid": "u"}),
        claim("x", labels={"kubernetes.io/metadata.name": "y"}), claim("x", annotations={"scheduler.alpha.kubernetes.io/node-selector": "a=b"}),
    ],
)  # fmt: skip
def test_the_agent_refuses_claims_that_only_a_faulty_hub_would_make(document: dict[str, Any]) -> None:
    assert find_claim_refusal(document)
    assert find_claim_refusal(claim("x", labels={"team": "a", "example.com/b": "c"})) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [("0.5", "500m"), ("1000m", "1"), ("1Gi", "1024Mi"), ("1e3", "1k"), ("0.1", "100m"), (".5", "0.5"), ("2E", "2e18")],
)
def test_quantities_that_an_api_server_writes_otherwise_mean_the_same(one: str, other: str) -> None:
    assert normalise({"hard": [one]}) == normalise({"hard": [other]})
    assert normalise("Container") == "Container"
    assert normalise("1Gi") != normalise("1G")
