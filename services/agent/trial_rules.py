"""What a trial of a policy looks at, and what answers mean. Pure; `trials` asks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from libs.common.contracts.messages import TrialOffender, TrialReport
from libs.common.kube.discovery import ApiResource
from libs.common.kube.objects import Document
from libs.common.policies.levels import ORDER_KIND
from libs.common.policies.names import TRIAL_KIND, UNTRIED, object_name
from services.agent.claims import CLAIM_VERSION

MAX_OFFENDERS = 50
_MORE = re.compile(r"\(and (\d+) other pods?\)")


@dataclass(frozen=True, slots=True)
class Order:
    """One trial to be made. `part` and `hash` are what must be applied first."""

    kind: str
    policy: str
    part: str
    hash: str
    spec: Mapping[str, Any] = field(compare=False)
    id: str = ""


@dataclass(slots=True)
class Findings:
    looked: int = 0
    violations: int = 0
    untried: int = 0
    complete: bool = True
    offenders: list[TrialOffender] = field(default_factory=list)

    def add(self, resource: str, namespace: str, name: str, message: str, count: int = 1) -> None:
        self.violations += count
        if len(self.offenders) < MAX_OFFENDERS:
            self.offenders.append(
                TrialOffender(resource=resource[:128], namespace=namespace[:63], name=name[:300], message=message[:600])
            )


def find_orders(parts: Mapping[str, tuple[str, Sequence[Document]]]) -> list[Order]:
    found = []
    for name, (hash_, objects) in sorted(parts.items()):
        for document in objects:
            if document.get("apiVersion") != CLAIM_VERSION or document.get("kind") not in (TRIAL_KIND, ORDER_KIND):
                continue
            spec: Mapping[str, Any] = document.get("spec") or {}
            kind = "AdmissionPolicy" if document["kind"] == TRIAL_KIND else "PodSecurityTemplate"
            trial = spec if document["kind"] == TRIAL_KIND else spec.get("trial") or {}
            found.append(Order(kind, str(document["metadata"]["name"]), name, hash_, spec, str(trial.get("id") or "")))
    return found


def report_of(order: Order, findings: Findings, message: str = "") -> TrialReport:
    trial = order.spec if order.kind == "AdmissionPolicy" else order.spec.get("trial") or {}
    return TrialReport(
        policy_kind=order.kind, policy=order.policy, policy_uid=str(trial.get("policyUid") or ""),
        generation=int(trial.get("generation") or 0), trial=order.id, looked=findings.looked, violations=findings.violations,
        untried=findings.untried, complete=findings.complete and not message, offenders=findings.offenders, message=message[:1024],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Subject:
    """One resource that a policy is about, and how its objects are tried: by an update that changes nothing, or by making them again."""

    resource: ApiResource
    method: str


def find_subjects(rules: Iterable[Mapping[str, Any]], known: Iterable[ApiResource]) -> list[Subject]:
    """What can be tried of what the rules name: resources that can be listed, no subresources, in the version that the server prefers."""
    rules = list(rules)
    found: dict[tuple[str, str], Subject] = {}
    for resource in known:
        if (resource.group, resource.plural) in UNTRIED or "list" not in resource.verbs:
            continue
        for rule in rules:
            operations = set(rule.get("operations") or ())
            method = "PATCH" if "UPDATE" in operations else "POST" if "CREATE" in operations else ""
            needs = {"PATCH": "patch", "POST": "create"}.get(method)
            if needs is None or needs not in resource.verbs or not _fits(rule, resource):
                continue
            before = found.get((resource.group, resource.plural))
            if before is None or before.method == "POST":
                found[(resource.group, resource.plural)] = Subject(resource, method)
    return [found[key] for key in sorted(found)]


def _fits(rule: Mapping[str, Any], resource: ApiResource) -> bool:
    """Versions are not compared: the policies match equivalent ones."""
    groups, resources = rule.get("apiGroups") or (), rule.get("resources") or ()
    scope = rule.get("scope", "*")
    return (
        ("*" in groups or resource.group in groups)
        and ("*" in resources or "*/*" in resources or resource.plural in resources)
        and (scope == "*" or (scope == "Namespaced") == resource.namespaced)
    )


def copy_of(item: Mapping[str, Any], resource: ApiResource) -> dict[str, Any]:
    """An object as it would be made again: without what the server gave it."""
    metadata = item.get("metadata") or {}
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "annotations") if key in metadata}
    rest = {key: value for key, value in item.items() if key not in ("metadata", "status", "apiVersion", "kind")}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": kept, **rest}


def violations_in(policy: str, warnings: Iterable[str], refusal: str) -> list[str]:
    """The messages of a policy among what an API server said of one request: what it warned of, or why it refused."""
    name = re.escape(object_name(policy))
    pattern = re.compile(
        rf"ValidatingAdmissionPolicy '{name}' with binding '{name}'(?: denied request)?: (.*)", re.DOTALL
    )
    return [found[1].strip() for text in (*warnings, refusal) if (found := pattern.search(text))]


def add_pods(findings: Findings, namespace: str, warnings: Sequence[str]) -> None:
    """What Kubernetes says of a stricter level: a headline for the namespace, and a line for each kind of pod that violates it."""
    for text in warnings:
        name, colon, reason = text.partition(": ")
        if not colon or name.startswith(("existing pods in namespace", "namespace ", "unrecognized")):
            continue
        more = _MORE.search(name)
        findings.add("pods", namespace, name, reason, 1 + (int(more[1]) if more else 0))
