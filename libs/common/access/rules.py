"""Rule sets: what a list of PolicyRules allows, and what one list allows that another does not.

Matching follows Kubernetes RBAC exactly (`k8s.io/kubernetes/pkg/apis/rbac/v1/evaluation_helpers.go` describes it): `*` stands for all
verbs, groups or resources, `*/status` for one subresource of everything, and a rule with resourceNames never matches a request
without a name. Rights only add. Used by `roles` (compiled once per role), `grants` (checks) and `escalation` (who may give what).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from libs.common.resources.access import PolicyRule

READ_VERBS = ("get", "list", "watch")
Names = frozenset[str] | None
"""The object names a right is limited to; None = all."""
ANSWERS_LIMIT = 1_000
"""Checks that a rule set remembers; what is asked again and again is far less, and what a stranger asks is not kept for ever."""


class Right(NamedTuple):
    """One verb on one resource of one API group (`resource` may be `pods/log`), or on one non-resource URL."""

    verb: str
    group: str = ""
    resource: str = ""
    url: str = ""

    def describe(self, names: Names = None) -> str:
        """For people: `get pods`, `update deployments.apps "web"`, `get URL /healthz`."""
        if self.url:
            return f"{self.verb} URL {self.url}"
        text = f"{self.verb} {self.resource}.{self.group}" if self.group else f"{self.verb} {self.resource}"
        return f'{text} "{", ".join(sorted(names))}"' if names else text


class RuleSet:
    """An immutable index of rules: a check is a dozen look-ups however many rules there are, and one when it was made before."""

    __slots__ = ("_answers", "_names")

    def __init__(self, rules: Iterable[PolicyRule]) -> None:
        names: dict[Right, Names] = {}
        for right, limited_to in split_rules(rules):
            before = names.get(right, frozenset())
            names[right] = None if before is None or limited_to is None else before | limited_to
        self._names = names
        self._answers: dict[tuple[str, str, str], Names] = {}

    def allows(self, verb: str, group: str, resource: str, subresource: str = "", name: str = "") -> bool:
        """Whether a request is allowed; `name` is empty for list, watch and create."""
        names = self.names(verb, group, f"{resource}/{subresource}" if subresource else resource)
        return names is None or name in names

    def names(self, verb: str, group: str, resource: str) -> Names:
        """For which names the right is held: None = all, empty = none."""
        asked = (verb, group, resource)
        try:
            return self._answers[asked]
        except KeyError:
            found = self._find_names(Right(verb, group, resource))
        if len(self._answers) < ANSWERS_LIMIT:
            self._answers[asked] = found
        return found

    def reaches(self, verb: str, group: str, resource: str) -> bool:
        """Whether the right is held for at least one name."""
        names = self.names(verb, group, resource)
        return names is None or bool(names)

    def find_lacking(self, rules: Iterable[PolicyRule]) -> list[str]:
        """The rights in `rules` that this set does not hold, described for people, sorted; [] = holds them all."""
        return sorted({text for right, names in split_rules(rules) if (text := self._lacking(right, names))})

    def _find_names(self, wanted: Right) -> Names:
        found: frozenset[str] = frozenset()
        for right in _wider(wanted):
            names = self._names.get(right, found)
            if names is None:
                return None
            found |= names
        return found

    def _lacking(self, right: Right, names: Names) -> str:
        if right.url:
            held = any(r.url and r.verb in (right.verb, "*") and _url_covers(r.url, right.url) for r in self._names)
            return "" if held else right.describe()
        held_names = self.names(right.verb, right.group, right.resource)
        if held_names is None:
            return ""
        if names is None:
            return right.describe()
        missing = names - held_names
        return right.describe(missing) if missing else ""


def split_rules(rules: Iterable[PolicyRule]) -> Iterator[tuple[Right, Names]]:
    """Every single right in rules, with the names it is limited to. A rule that names resources but no group holds none."""
    for rule in rules:
        names = frozenset(rule.resource_names) or None
        for verb in rule.verbs:
            for url in rule.non_resource_urls:
                yield Right(verb, url=url), None
            for group in rule.api_groups:
                for resource in rule.resources:
                    yield Right(verb, group, resource), names


def _wider(right: Right) -> Iterator[Right]:
    """The right itself and every wildcard form that includes it."""
    _, _, subresource = right.resource.partition("/")
    resources = dict.fromkeys((right.resource, "*", f"*/{subresource}" if subresource else "*"))
    for verb in dict.fromkeys((right.verb, "*")):
        for group in dict.fromkeys((right.group, "*")):
            for resource in resources:
                yield Right(verb, group, resource)


def _url_covers(held: str, wanted: str) -> bool:
    return held in ("*", wanted) or (held.endswith("*") and wanted.startswith(held.rstrip("*")))
