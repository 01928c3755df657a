"""The pure checks of roles and bindings: values in, causes out. `strategies` and `binding_strategy` call them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from libs.common.access.bindings import AnyBinding, BindingIndex, fact_of
from libs.common.access.roles import EffectiveRole, find_cycle, find_too_large, resolve_role
from libs.common.apiserver.metadata import label_value_error, qualified_name_error
from libs.common.errors import Cause
from libs.common.resources.access import BindingScope, PolicyRule, RoleTemplate, RoleTemplateBinding
from libs.common.resources.meta import GROUP
from libs.common.resources.registry import BY_PLURAL
from libs.common.resources.selectors import LabelSelector

ADMIN_ROLE = "admin"
_OBJECT_VERBS = frozenset({"*", "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"})
HUB_VERBS = _OBJECT_VERBS | {"provision"}
"""`provision`: to push users and groups of an identity provider (SCIM)."""
CLUSTER_VERBS = _OBJECT_VERBS | {"approve", "attest", "bind", "escalate", "impersonate", "sign", "use"}
"""What Kubernetes and its own API groups know. A verb that nobody asks about is a slip of the pen, and gives nothing."""
URL_VERBS = frozenset({"*", "delete", "get", "head", "options", "patch", "post", "put"})
_IMPERSONATION_VERB = re.compile(r"impersonate(-on)?:[a-z]+(-[a-z]+)*(:[a-z]+)?")
"""Of constrained impersonation, such as impersonate:user-info and impersonate-on:user-info:list."""
_MAX_TOLD = 80
_TURNING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""Unicode's embeddings, overrides and isolates of direction."""
_PRINCIPAL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?:(user|group):\S(.*\S)?")
_MAX_PRINCIPAL = 1024
SUBRESOURCES = {
    "clusters/registration",
    "auditevents",
    "sessionrecordings",
    "projects/namespaces",
    "projects/policies",
    "projecttemplates/projects",
}
"""Rights on what is no stored resource of its own, beside `<plural>/status`."""


def check_template(template: RoleTemplate, by_name: Mapping[str, RoleTemplate]) -> list[Cause]:
    """What is wrong with a role: its rules by themselves and what it inherits."""
    spec, causes = template.spec, check_text("spec.description", template.spec.description, lines=True)
    causes += check_text("spec.displayName", spec.display_name)
    if spec.scope == "global" and spec.rules:
        causes.append(
            _forbidden("spec.rules", "a global role has rights on the hub alone: use hubRules, or scope cluster")
        )
    if spec.scope == "global" and spec.creator_default:
        causes.append(
            _forbidden(
                "spec.creatorDefault", "clusters and projects have makers, and roles of scope cluster and project"
            )
        )
    for index, rule in enumerate(spec.rules):
        known = URL_VERBS if rule.non_resource_urls else CLUSTER_VERBS
        causes += _check_rule(f"spec.rules[{index}]", rule) + _check_verbs(f"spec.rules[{index}]", rule, known)
        if spec.scope == "project" and rule.non_resource_urls:
            causes.append(
                _forbidden(f"spec.rules[{index}].nonResourceURLs", "a project role counts in namespaces only")
            )
    for index, rule in enumerate(spec.hub_rules):
        path = f"spec.hubRules[{index}]"
        causes += _check_rule(path, rule) + _check_verbs(path, rule, HUB_VERBS) + _check_hub_rule(path, rule)
    for index, name in enumerate(spec.inherits):
        parent, path = by_name.get(name), f"spec.inherits[{index}]"
        if parent is None or parent.deleting:
            causes.append(Cause(path, f'Not found: "{name}"', "FieldValueNotFound"))
        elif parent.spec.scope != spec.scope:
            causes.append(_invalid(path, name, f"it has scope {parent.spec.scope}, this role has scope {spec.scope}"))
    cycle = find_cycle(template, by_name)
    if cycle:
        causes.append(
            Cause(
                "spec.inherits", f"Forbidden: the role would inherit itself: {' → '.join(cycle)}", "FieldValueForbidden"
            )
        )
    too_large = find_too_large([template.name], {**by_name, template.name: template})
    if too_large:
        causes.append(Cause("spec", f"Too many: {too_large}", "FieldValueTooMany"))
    return causes


def check_scope(binding: RoleTemplateBinding, role: RoleTemplate) -> list[Cause]:
    """Whether the binding has exactly one scope, and one in which this role counts."""
    scope = binding.spec.scope
    kinds = {
        "global": scope.all, "cluster": scope.cluster, "clusterSelector": scope.cluster_selector is not None,
        "project": scope.project,
    }  # fmt: skip
    given = [name for name, value in kinds.items() if value]
    if len(given) != 1:
        return [
            Cause("spec.scope", "Invalid value: exactly one of global, cluster, clusterSelector and project must be given")
        ]  # fmt: skip
    fitting = {"global": ["global"], "cluster": ["cluster", "clusterSelector", "global"], "project": ["project"]}[
        role.spec.scope
    ]
    if given[0] not in fitting:
        why = f'role "{role.name}" has scope {role.spec.scope} and can be bound with {" or ".join(fitting)}, not with {given[0]}'
        return [Cause("spec.scope", f"Forbidden: {why}", "FieldValueForbidden")]
    return (
        [] if scope.cluster_selector is None else check_selector("spec.scope.clusterSelector", scope.cluster_selector)
    )


def check_selector(path: str, selector: LabelSelector) -> list[Cause]:
    """Conditions that labels can meet, and at least one: everything is said by `global: true`, not by saying nothing."""
    if not selector.requirements:
        why = "it selects every cluster: say so with global: true, or name labels"
        return [Cause(path, f"Invalid value: {why}")]
    causes = []
    for key, value in selector.match_labels.items():
        causes += [_invalid(f"{path}.matchLabels", key, why) for why in [qualified_name_error(key)] if why]
        causes += [_invalid(f"{path}.matchLabels[{key}]", value, why) for why in [label_value_error(value)] if why]
    for index, expression in enumerate(selector.match_expressions):
        at = f"{path}.matchExpressions[{index}]"
        causes += [_invalid(f"{at}.key", expression.key, why) for why in [qualified_name_error(expression.key)] if why]
        if (expression.operator in ("In", "NotIn")) != bool(expression.values):
            wanted = "at least one value" if not expression.values else "no values"
            causes.append(_invalid(f"{at}.values", "", f"operator {expression.operator} takes {wanted}"))
        for value in expression.values:
            causes += [_invalid(f"{at}.values", value, why) for why in [label_value_error(value)] if why]
    return causes


def check_principal(principal: str) -> list[Cause]:
    """The form of a principal id; names that Kubernetes reserves are refused from any provider."""
    if len(principal) > _MAX_PRINCIPAL or not _PRINCIPAL.fullmatch(principal):
        return [_invalid("spec.principal", principal[:80], "must be <provider>:<user|group>:<immutable id>")]
    if principal.split(":", 2)[2].startswith("system:"):
        return [_forbidden("spec.principal", "names that begin with system: are reserved")]
    return check_text("spec.principal", principal)


def check_text(path: str, text: str, *, lines: bool = False) -> list[Cause]:
    """Text for people is shown in lists and terminals, so it holds nothing that moves the cursor or turns the writing round."""
    for char in text:
        if (unicodedata.category(char) in ("Cc", "Zl", "Zp") and not (lines and char == "\n")) or char in _TURNING:
            return [Cause(path, f"Invalid value: must be {'text' if lines else 'one line'} without control characters")]
    return []


def find_changed_fields(old: RoleTemplateBinding, new: RoleTemplateBinding) -> list[str]:
    """The fields of a binding's spec that changed although they can't."""
    fields = ("principal", "user", "role", "scope")
    return [f"spec.{name}" for name in fields if getattr(old.spec, name) != getattr(new.spec, name)]


def is_prolonged(old: RoleTemplateBinding, new: RoleTemplateBinding) -> bool:
    """Whether the binding would count longer than before: that is giving again."""
    before, after = old.spec.not_after, new.spec.not_after
    return before is not None and (after is None or after > before)


def find_affected(
    template: RoleTemplate, by_name: Mapping[str, RoleTemplate], bindings: BindingIndex
) -> Iterator[tuple[EffectiveRole, BindingScope]]:
    """Every (role, scope) whose bound rights a changed template changes: its own, and those of roles that inherit it.

    A role that makers are given counts everywhere: anything may be made.
    """
    changed = {**by_name, template.name: template}
    heirs = sorted(name for name, t in changed.items() if name == template.name or _inherits(t, template.name, changed))
    for name in heirs:
        meant = [BindingScope(all=True)] if changed[name].spec.creator_default else []
        scopes = {scope.model_dump_json(): scope for scope in (*meant, *(b.scope for b in bindings.of_role(name)))}
        if scopes:
            role = resolve_role(changed[name], changed)
            yield from ((role, scopes[text]) for text in sorted(scopes))


def leaves_no_admin(bindings: Iterable[AnyBinding], without: AnyBinding, enabled: set[str], now: datetime) -> bool:
    """Whether nobody would be an admin for good any more without this binding; `enabled`: principal ids of enabled users."""
    admins = {b.name for b in bindings if is_lasting_admin(b, enabled, now)}
    return admins == {without.name}


def may_be_admin(binding: AnyBinding) -> bool:
    """Whether the binding is one of those that make an admin for good, if they count."""
    fact = fact_of(binding)
    return fact.role == ADMIN_ROLE and fact.everywhere and fact.not_after is None


def is_lasting_admin(binding: AnyBinding, enabled: set[str], now: datetime) -> bool:
    fact = fact_of(binding)
    return may_be_admin(fact) and fact.is_counting(now) and fact.principal in enabled


def _inherits(template: RoleTemplate, name: str, by_name: Mapping[str, RoleTemplate]) -> bool:
    seen: set[str] = set()
    queue = list(template.spec.inherits)
    while queue:
        current = queue.pop()
        if current == name:
            return True
        if current not in seen and current in by_name:
            seen.add(current)
            queue += by_name[current].spec.inherits
    return False


def _check_rule(path: str, rule: PolicyRule) -> list[Cause]:
    causes = [
        _invalid(f"{path}.{_camel(name)}", "", "must not hold an empty text")
        for name in ("verbs", "resources", "resource_names", "non_resource_urls")
        if not all(getattr(rule, name))
    ]
    for name in ("api_groups", "resources", "resource_names", "non_resource_urls"):
        # Whoever lacks such a right reads it in an error: it must not write on their terminal.
        causes += [c for text in getattr(rule, name) for c in check_text(f"{path}.{_camel(name)}", text)][:1]
    if rule.resources and rule.non_resource_urls:
        causes.append(_forbidden(path, "a rule is for resources or for nonResourceURLs, not for both"))
    elif not rule.resources and not rule.non_resource_urls:
        causes.append(
            Cause(
                f"{path}.resources", "Required value: a rule needs resources or nonResourceURLs", "FieldValueRequired"
            )
        )
    if rule.resources and not rule.api_groups:
        why = 'Required value: name the API group of the resources, "" for the core group'
        causes.append(Cause(f"{path}.apiGroups", why, "FieldValueRequired"))
    if rule.resource_names and not rule.resources:
        causes.append(_forbidden(f"{path}.resourceNames", "names limit resources, and there are none"))
    for index, url in enumerate(rule.non_resource_urls):
        if not (url.startswith("/") or url == "*") or "*" in url[:-1]:
            causes.append(_invalid(f"{path}.nonResourceURLs[{index}]", url, "must be a path; `*` may only end it"))
    return causes


def _check_verbs(path: str, rule: PolicyRule, known: frozenset[str]) -> list[Cause]:
    causes = []
    for index, verb in enumerate(rule.verbs):
        fits = verb in known or (known is CLUSTER_VERBS and _IMPERSONATION_VERB.fullmatch(verb))
        if verb and not fits:
            why = f"there is no such verb: supported are {', '.join(sorted(known))}"
            causes.append(
                Cause(
                    f"{path}.verbs[{index}]",
                    f'Unsupported value: "{verb[:_MAX_TOLD]}": {why}',
                    "FieldValueNotSupported",
                )
            )
    return causes


def _check_hub_rule(path: str, rule: PolicyRule) -> list[Cause]:
    causes = []
    if rule.non_resource_urls:
        causes.append(_forbidden(f"{path}.nonResourceURLs", "the hub has rights on resources only"))
    for index, group in enumerate(rule.api_groups):
        if group not in (GROUP, "*"):
            causes.append(_invalid(f"{path}.apiGroups[{index}]", group, f"the hub's objects are in {GROUP}"))
    for index, resource in enumerate(rule.resources):
        plural, _, subresource = resource.partition("/")
        known = (plural in BY_PLURAL or plural == "*") and subresource in ("", "status", "*")
        if resource not in SUBRESOURCES and not known:
            causes.append(_invalid(f"{path}.resources[{index}]", resource, "the hub has no such resource"))
    return causes


def _camel(name: str) -> str:
    known = {"api_groups": "apiGroups", "resource_names": "resourceNames", "non_resource_urls": "nonResourceURLs"}
    return known.get(name, name)


def _invalid(path: str, value: str, why: str) -> Cause:
    return Cause(path, f'Invalid value: "{value}": {why}')


def _forbidden(path: str, why: str) -> Cause:
    return Cause(path, f"Forbidden: {why}", "FieldValueForbidden")
