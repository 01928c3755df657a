"""What keeps guarded projects isolated in a cluster."""

from __future__ import annotations

from typing import Any

from libs.common.resources.projects import Project
from services.agent.owned import find_refusal
from services.cluster_controller.render_guard import EGRESS, INGRESS, LABELS, render_guard
from tests.cluster_controller.test_render_projects import project


def guarded(name: str, **spec: Any) -> Project:
    made = project(name, "edge/web")
    return made.model_copy(update={"spec": made.spec.model_copy(update={"guarded": True, **spec})})


def rules(objects: list[dict[str, Any]], name: str) -> list[tuple[str, str]]:
    found = next(o for o in objects if o["metadata"]["name"] == name and o["kind"] == "ValidatingAdmissionPolicy")
    constraints = found["spec"]["matchConstraints"]["resourceRules"]
    assert all(set(rule["operations"]) == {"CREATE", "UPDATE"} for rule in constraints)
    return sorted(
        (group, plural) for rule in constraints for group in rule["apiGroups"] for plural in rule["resources"]
    )


def test_nothing_is_guarded_where_no_project_asks_for_it() -> None:
    assert render_guard([project("shop", "edge/web")], "agent") == []


def test_a_projects_label_is_kept_by_every_way_that_an_api_server_takes_labels() -> None:
    objects = render_guard([guarded("shop")], "agent")
    assert rules(objects, LABELS) == [("", "namespaces"), ("", "namespaces/finalize"), ("", "namespaces/status")]
    assert [find_refusal(o) for o in objects] == [""] * len(objects)


def test_networks_are_kept_by_the_names_of_guarded_projects() -> None:
    objects = render_guard([project("free", "edge/x"), guarded("shop"), guarded("bank", default_deny=True)], "agent")
    selected = {
        o["metadata"]["name"]: o["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"][0]["values"]
        for o in objects
        if o["kind"] == "ValidatingAdmissionPolicy" and o["metadata"]["name"] != LABELS
    }
    assert selected == {INGRESS: ["bank", "shop"], EGRESS: ["bank"]}
    assert rules(objects, INGRESS) == [("networking.k8s.io", "networkpolicies")]
