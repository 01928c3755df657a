"""What keeps isolated projects isolated: policies that the cluster's API server judges by itself. Pure.

NetworkPolicies add up, and ours goes by a label: whoever may write either in a cluster gets around it. Where a project is guarded, both are
refused to everybody but the agent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from libs.common.policies.admission import make_binding, make_policy, not_by
from libs.common.policies.names import object_name
from libs.common.resources.projects import Project
from services.cluster_controller.render_projects import PROJECT_LABEL

GUARD_PART = "project-guard"
LABELS, INGRESS, EGRESS = (object_name(f"projects.{what}") for what in ("labels", "ingress", "egress"))
"""Policies' own names hold no dot: nobody's policy is called so."""


def render_guard(projects: Iterable[Project], agent_user: str) -> list[dict[str, Any]]:
    """For the projects of one cluster; [] where none is guarded. The label is then kept on all namespaces, as others select by it."""
    guarded = [p for p in projects if p.spec.guarded and not p.deleting]
    if not guarded:
        return []
    exempt = not_by(agent_user)
    objects = [_labels(exempt), make_binding(LABELS)]
    for name, field, peers, names in (
        (INGRESS, "ingress", "from", sorted(p.name for p in guarded)),
        (EGRESS, "egress", "to", sorted(p.name for p in guarded if p.spec.default_deny)),
    ):
        if names:
            objects += [_network(name, field, peers, names, exempt), make_binding(name)]
    return objects


def _labels(exempt: dict[str, str]) -> dict[str, Any]:
    def value(of: str) -> str:
        label = f"'{PROJECT_LABEL}'"
        return f"{of} != null && has({of}.metadata.labels) && {label} in {of}.metadata.labels ? {of}.metadata.labels[{label}] : ''"

    body = {
        "matchConditions": [exempt],
        "variables": [
            {"name": "before", "expression": value("oldObject")},
            {"name": "after", "expression": value("object")},
        ],
        "validations": [
            {
                "expression": "variables.before == variables.after",
                "message": f"the label {PROJECT_LABEL} is the hub's: use herdsman project add or remove",
                "reason": "Forbidden",
            }
        ],
    }
    # An API server takes labels by these subresources, too.
    rule = _rule("", "namespaces", "namespaces/finalize", "namespaces/status")
    return make_policy(LABELS, [rule], body)


def _network(name: str, field: str, peers: str, projects: list[str], exempt: dict[str, str]) -> dict[str, Any]:
    allowed = f"has(rule.{peers}) && rule.{peers}.size() > 0 && rule.{peers}.all(peer, !has(peer.namespaceSelector) && !has(peer.ipBlock))"
    body = {
        "matchConditions": [exempt],
        "validations": [
            {
                "expression": f"!has(object.spec.{field}) || object.spec.{field}.all(rule, {allowed})",
                "message": f"the namespace's project is guarded: {field} may be allowed within the namespace alone",
                "reason": "Forbidden",
            }
        ],
    }
    selector = {"matchExpressions": [{"key": PROJECT_LABEL, "operator": "In", "values": projects}]}
    return make_policy(name, [_rule("networking.k8s.io", "networkpolicies")], body, namespaces=selector)


def _rule(group: str, *resources: str) -> dict[str, Any]:
    return {
        "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": list(resources), "scope": "*",
    }  # fmt: skip
