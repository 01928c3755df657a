"""An AdmissionPolicy → the ValidatingAdmissionPolicy that a cluster holds, its binding, and what a trial of it needs. Pure.

It is Kubernetes' own: each API server judges by itself, so a policy works while the hub and the agent are away, and no webhook is there to
fail. Nothing that the agent itself writes is ever judged: a policy must not lock out who could take it away again.

A trial asks the API server about what is there by requests that change nothing. They are made under a name of their own, which has rights
on what the policy is about, and a second policy refuses everything under that name that would not be a dry run. That second one also tells
when the API server has begun to apply the first: it comes after it in every watch, and knows which version it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from libs.common.kube.objects import content_hash
from libs.common.policies.choice import trial_id
from libs.common.policies.names import (
    AGENT_ACCOUNT,
    BINDING,
    CANARY,
    NO_REVIEW,
    POLICY,
    PROJECT_LABEL,
    SYSTEM_NAMESPACES,
    TRIAL_KIND,
    TRIAL_USER,
    UNTRIED,
    VERSION,
    guard_name,
    object_name,
    trial_group,
)
from libs.common.resources.meta import API_VERSION
from libs.common.resources.policies import AdmissionPolicy, NamedExpression, ResourceRule
from libs.common.resources.selectors import LabelSelector

_NAMESPACE_NAME = "kubernetes.io/metadata.name"
_RBAC = "rbac.authorization.k8s.io"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:@._/-")


def quote_cel(text: str) -> str:
    """A CEL string literal, whatever the text holds: an agent's name for itself is the cluster's to choose."""
    return '"' + "".join(char if char in _PLAIN else f"\\U{ord(char):08x}" for char in text) + '"'


def render_admission(policy: AdmissionPolicy, agent_user: str) -> list[dict[str, Any]]:
    """The objects and the trial's order, in a fixed order. `agent_user`: whom the cluster takes its agent for."""
    name, spec = object_name(policy.name), policy.spec
    exempt = not_by(agent_user)
    rules = [_rule(rule) for rule in spec.match_constraints.resource_rules]
    constraints: dict[str, Any] = {
        "matchPolicy": "Equivalent",
        "namespaceSelector": _namespaces(policy),
        "objectSelector": _selector(spec.match_constraints.object_selector),
        "resourceRules": rules,
    }
    if spec.match_constraints.exclude_resource_rules:
        constraints["excludeResourceRules"] = [_rule(r) for r in spec.match_constraints.exclude_resource_rules]
    body: dict[str, Any] = {
        "failurePolicy": spec.failure_policy,
        "matchConstraints": constraints,
        "matchConditions": [exempt, *map(_named, spec.match_conditions)],
        "validations": [
            {"expression": v.expression, "message": v.message, "reason": v.reason} for v in spec.validations
        ],
    }
    if spec.variables:
        body["variables"] = [_named(v) for v in spec.variables]
    actions = ["Deny", "Audit"] if spec.stage == "Enforce" else ["Warn", "Audit"]
    return [
        _policy(name, body),
        _binding(name, actions),
        *_render_trial(policy, exempt),
    ]


def not_by(agent_user: str) -> dict[str, str]:
    """The match condition that exempts the agent, under whichever name it works in this cluster."""
    users = sorted({AGENT_ACCOUNT, agent_user} - {"", NO_REVIEW})
    listed = ", ".join(quote_cel(user) for user in users)
    return {"name": "not-herdsman", "expression": f"!(request.userInfo.username in [{listed}])"}


def make_policy(name: str, rules: Iterable[dict[str, Any]], body: dict[str, Any], *, namespaces: dict[str, Any] | None = None) -> dict[str, Any]:  # fmt: skip
    """A policy of the hub's own, on these rules."""
    constraints = {
        "matchPolicy": "Equivalent", "namespaceSelector": namespaces or {}, "objectSelector": {}, "resourceRules": list(rules),
    }  # fmt: skip
    return _policy(name, {"failurePolicy": "Fail", "matchConstraints": constraints, **body})


def make_binding(name: str) -> dict[str, Any]:
    return _binding(name, ["Deny", "Audit"])


def _render_trial(policy: AdmissionPolicy, exempt: dict[str, str]) -> list[dict[str, Any]]:
    rules, name, id_ = policy.spec.match_constraints.resource_rules, guard_name(policy.name), trial_id(policy)
    group = trial_group(policy.name)
    # It comes anew with each version, so that it can tell which one is at work.
    version = content_hash([policy.spec.model_dump(mode="json", by_alias=True)])[:24]
    rights = _rights(rules)
    guard = make_policy(
        name,
        [_judged(right) for right in rights],
        {
            "matchConditions": [{"name": "trial", "expression": f"{quote_cel(group)} in request.userInfo.groups"}],
            "validations": [
                {
                    "expression": "has(request.dryRun) && request.dryRun",
                    "message": "trials are dry runs",
                    "reason": "Forbidden",
                },
                {
                    "expression": f"object == null || !has(object.metadata.labels) || !({quote_cel(CANARY)} in object.metadata.labels) || "
                    f"object.metadata.labels[{quote_cel(CANARY)}] != {quote_cel(version)}",
                    "message": "the policy is at work",
                    "reason": "Forbidden",
                },
            ],
        },
    )
    metadata = {"name": f"{TRIAL_USER}:{policy.name}"}
    role = {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rights}
    binding = {
        "apiVersion": f"{_RBAC}/v1", "kind": "ClusterRoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": metadata["name"]},
        "subjects": [{"apiGroup": _RBAC, "kind": "Group", "name": group}],
    }  # fmt: skip
    order = {
        "apiVersion": API_VERSION, "kind": TRIAL_KIND, "metadata": {"name": policy.name},
        "spec": {
            "policyKind": policy.KIND, "policyUid": policy.uid, "generation": policy.metadata.generation or 0, "id": id_, "canary": version,
            "rules": [_rule(rule) for rule in rules],
            "exempt": sorted({*SYSTEM_NAMESPACES, *policy.spec.exempt_namespaces}),
        },
    }  # fmt: skip
    return [guard, make_binding(name), role, binding, order]


def _rights(rules: Iterable[ResourceRule]) -> list[dict[str, Any]]:
    """On what the trial looks at, and no subresource: what has none of its own is not tried."""
    rights = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}]
    for rule in rules:
        resources = sorted({r for r in rule.resources if "/" not in r and not _is_untried(rule.api_groups, r)})
        operations = set(rule.operations) & {"CREATE", "UPDATE"}
        if not resources or not operations:
            continue
        verbs = ["list", *(["patch"] if "UPDATE" in operations else ["create"])]
        right = {"apiGroups": sorted(set(rule.api_groups)), "resources": resources, "verbs": verbs}
        if right not in rights:
            rights.append(right)
    return rights


def _is_untried(groups: Iterable[str], resource: str) -> bool:
    return all((group, resource) in UNTRIED for group in groups)


def _judged(right: dict[str, Any]) -> dict[str, Any]:
    """All that a right lets be written, and not only what the policy is about: roles know no versions, scopes or names, and their `*` means
    subresources as well.
    """
    resources, operations = right["resources"], ["CREATE", "UPDATE", "DELETE"]
    if "*" in resources:
        resources, operations = ["*/*"], [*operations, "CONNECT"]
    return {
        "apiGroups": right["apiGroups"], "apiVersions": ["*"], "operations": operations, "resources": resources, "scope": "*",
    }  # fmt: skip


def _namespaces(policy: AdmissionPolicy) -> dict[str, Any]:
    """Where it counts: not in exempt namespaces, and only in those of the projects that are named."""
    given = policy.spec.match_constraints.namespace_selector
    rendered = _selector(given)
    exempt = sorted({*SYSTEM_NAMESPACES, *policy.spec.exempt_namespaces})
    more = [{"key": _NAMESPACE_NAME, "operator": "NotIn", "values": exempt}]
    if policy.spec.projects:
        more.append({"key": PROJECT_LABEL, "operator": "In", "values": sorted(set(policy.spec.projects))})
    return {**rendered, "matchExpressions": [*rendered.get("matchExpressions", ()), *more]}


def _selector(selector: LabelSelector | None) -> dict[str, Any]:
    if selector is None:
        return {}
    rendered: dict[str, Any] = {}
    if selector.match_labels:
        rendered["matchLabels"] = dict(selector.match_labels)
    if selector.match_expressions:
        rendered["matchExpressions"] = [
            {"key": e.key, "operator": e.operator, **({"values": list(e.values)} if e.values else {})}
            for e in selector.match_expressions
        ]
    return rendered


def _rule(rule: ResourceRule) -> dict[str, Any]:
    rendered: dict[str, Any] = {
        "apiGroups": list(rule.api_groups), "apiVersions": list(rule.api_versions), "operations": list(rule.operations),
        "resources": list(rule.resources), "scope": rule.scope,
    }  # fmt: skip
    if rule.resource_names:
        rendered["resourceNames"] = list(rule.resource_names)
    return rendered


def _named(item: NamedExpression) -> dict[str, str]:
    return {"name": item.name, "expression": item.expression}


def _policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": VERSION, "kind": POLICY, "metadata": {"name": name}, "spec": spec}


def _binding(name: str, actions: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": VERSION,
        "kind": BINDING,
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": actions},
    }
