"""What can be wrong with a policy beyond its types, and when one begins to refuse. Pure; `policy_strategies` calls it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from libs.common.errors import Cause
from libs.common.policies.levels import version_rank
from libs.common.resources.policies import (
    AdmissionPolicy,
    AdmissionPolicySpec,
    ClusterChoice,
    NamedExpression,
    PodSecurityTemplate,
    PodSecurityTemplateSpec,
    ResourceRule,
)
from libs.common.resources.selectors import LabelSelector
from services.authz.rules import check_selector, check_text

Policy = AdmissionPolicy | PodSecurityTemplate
Spec = AdmissionPolicySpec | PodSecurityTemplateSpec
_GROUP = re.compile(r"\*|[a-z0-9]([-a-z0-9.]*[a-z0-9])?|")
_VERSION = re.compile(r"\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_RESOURCE = re.compile(r"(\*|[a-z][a-z0-9-]*)(/(\*|[a-z][a-z0-9-]*))?")
_CONDITION = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OWN_CONDITION = "not-herdsman"
_ALL = ("*", "*/*")
_SAYS_NOTHING = frozenset({"description", "stage", "enforce_at_once"})
"""Fields that change nothing of what a policy refuses."""


def check_choice(choice: ClusterChoice) -> list[Cause]:
    """Exactly one way to choose, and one that says something."""
    given = [
        name
        for name, value in (("global", choice.all), ("names", choice.names), ("selector", choice.selector is not None))
        if value
    ]
    if len(given) != 1:
        why = "exactly one of global, names and selector must be given: every cluster is global: true"
        return [Cause("spec.clusters", f"Invalid value: {why}")]
    return [] if choice.selector is None else check_selector("spec.clusters.selector", choice.selector)


def check_admission(policy: AdmissionPolicy) -> list[Cause]:
    spec, path = policy.spec, "spec.matchConstraints"
    causes = [*check_choice(spec.clusters), *check_text("spec.description", spec.description, lines=True)]
    for index, rule in enumerate(spec.match_constraints.resource_rules):
        causes += _check_rule(f"{path}.resourceRules[{index}]", rule, everything=False)
    for index, rule in enumerate(spec.match_constraints.exclude_resource_rules):
        causes += _check_rule(f"{path}.excludeResourceRules[{index}]", rule, everything=True)
    for name in ("namespace_selector", "object_selector"):
        causes += _check_inner(f"{path}.{_camel(name)}", getattr(spec.match_constraints, name))
    causes += _check_named("spec.matchConditions", spec.match_conditions, _CONDITION, reserved=OWN_CONDITION)
    causes += _check_named("spec.variables", spec.variables, _VARIABLE)
    for index, validation in enumerate(spec.validations):
        at = f"spec.validations[{index}]"
        causes += _check_expression(f"{at}.expression", validation.expression)
        if not validation.message.strip():
            causes.append(Cause(f"{at}.message", "Required value: whoever is refused reads it", "FieldValueRequired"))
        causes += check_text(f"{at}.message", validation.message)
    return causes


def check_pod_security(template: PodSecurityTemplate) -> list[Cause]:
    spec = template.spec
    causes = [*check_choice(spec.clusters), *check_text("spec.description", spec.description, lines=True)]
    modes = {name: getattr(spec, name) for name in ("enforce", "audit", "warn")}
    if not any(modes.values()):
        causes.append(Cause("spec", "Required value: at least one of enforce, audit and warn", "FieldValueRequired"))
    for name, mode in modes.items():
        if mode is None:
            continue
        try:
            version_rank(mode.version)
        except ValueError as exc:
            causes.append(_invalid(f"spec.{name}.version", mode.version, str(exc)))
    if spec.stage == "Enforce" and spec.enforce is None:
        causes.append(
            Cause(
                "spec.enforce", "Required value: in stage Enforce there is something to enforce", "FieldValueRequired"
            )
        )
    return causes


def begins_to_refuse(old: Policy | None, new: Policy) -> bool:
    """Whether a write has something refused that never stood in Audit: a policy that begins so, or is more than what was there."""
    if new.spec.stage != "Enforce":
        return False
    return old is None or not is_covered(new.spec, old.spec)


def is_covered(new: Spec, old: Spec) -> bool:
    """Whether `new` refuses nothing that `old` did not speak of: the same, for fewer clusters, projects or namespaces."""
    return (
        _text(new) == _text(old)
        and set(old.exempt_namespaces) <= set(new.exempt_namespaces)
        and _is_fewer(new.clusters, old.clusters)
        and (not old.projects or (bool(new.projects) and set(new.projects) <= set(old.projects)))
    )


def _text(spec: Spec) -> dict[str, Any]:
    """What is refused, apart from where."""
    apart = _SAYS_NOTHING | {"exempt_namespaces", "clusters", "projects"}
    return {key: value for key, value in spec.model_dump().items() if key not in apart}


def _is_fewer(new: ClusterChoice, old: ClusterChoice) -> bool:
    if old.all:
        return True
    if new.names and old.names:
        return set(new.names) <= set(old.names)
    if new.selector is None or old.selector is None:
        return False
    return set(new.selector.requirements) >= set(old.selector.requirements)


def _check_rule(path: str, rule: ResourceRule, *, everything: bool) -> list[Cause]:
    causes = []
    for name, known in (("api_groups", _GROUP), ("api_versions", _VERSION), ("resources", _RESOURCE)):
        for index, text in enumerate(getattr(rule, name)):
            if not known.fullmatch(text):
                causes.append(_invalid(f"{path}.{_camel(name)}[{index}]", text, "it names nothing"))
    if not everything and "*" in rule.api_groups and any(r in _ALL for r in rule.resources):
        causes.append(
            _invalid(f"{path}.resources", "*", "with every API group it selects everything: name groups or resources")
        )
    if len(set(rule.operations)) != len(rule.operations):
        causes.append(Cause(f"{path}.operations", "Duplicate value: each operation once", "FieldValueDuplicate"))
    return causes


def _check_inner(path: str, selector: LabelSelector | None) -> list[Cause]:
    if selector is None:
        return []
    if not selector.requirements:
        return [Cause(path, "Invalid value: it selects everything: leave it out, or name labels")]
    return check_selector(path, selector)


def _check_named(
    path: str, items: Iterable[NamedExpression], known: re.Pattern[str], *, reserved: str = ""
) -> list[Cause]:
    causes, seen = [], set()
    for index, item in enumerate(items):
        at = f"{path}[{index}]"
        if not known.fullmatch(item.name):
            causes.append(_invalid(f"{at}.name", item.name, "must be a name"))
        if item.name in seen:
            causes.append(Cause(f"{at}.name", f'Duplicate value: "{item.name}"', "FieldValueDuplicate"))
        if item.name == reserved:
            causes.append(_invalid(f"{at}.name", item.name, "the hub has a condition of this name"))
        seen.add(item.name)
        causes += _check_expression(f"{at}.expression", item.expression)
    return causes


def _check_expression(path: str, expression: str) -> list[Cause]:
    """CEL itself is the clusters' to judge: they say so in the policy's status."""
    return [] if expression.strip() else [Cause(path, "Required value: a CEL expression", "FieldValueRequired")]


def _invalid(path: str, value: str, why: str) -> Cause:
    return Cause(path, f'Invalid value: "{value[:80]}": {why}')


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


def tell_trial(status: Mapping[str, Any]) -> str:
    """What the last trials say to enforcing a policy (its status, as a document); empty = all was tried and nothing violates it."""
    clusters = status.get("clusters") or ()
    broken = [c for c in clusters if c.get("violations")]
    untried = [c["name"] for c in clusters if c.get("violations") is None]
    told = []
    if broken:
        total = sum(c["violations"] for c in broken)
        told.append(f"{total} objects violate it in {_names([c['name'] for c in broken])}")
    if untried:
        told.append(f"it was not tried in {_names(untried)}")
    return "; ".join(told)


def _names(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
