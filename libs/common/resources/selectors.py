"""Label selectors: the conditions themselves, and the form in which a resource holds them. Pure.

`libs.common.apiserver.selectors` reads the texts that clients send; matching is here alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from libs.common.resources.meta import Model

_OPERATORS: Mapping[str, Literal["In", "NotIn", "Exists", "DoesNotExist"]] = {
    "in": "In", "notin": "NotIn", "exists": "Exists", "absent": "DoesNotExist"
}  # fmt: skip
_WORDS = {word: operator for operator, word in _OPERATORS.items()}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition. `operator` is in, notin, exists, absent, gt or lt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def is_met(self, value: str | None) -> bool:
        """`notin` is met by an absent label, as in Kubernetes."""
        if self.operator == "in":
            return value is not None and value in self.values
        if self.operator == "notin":
            return value is None or value not in self.values
        if self.operator in ("exists", "absent"):
            return (value is not None) == (self.operator == "exists")
        if value is None or not re.fullmatch(r"-?\d{1,18}", value):
            return False
        (bound,) = self.values
        return int(value) > int(bound) if self.operator == "gt" else int(value) < int(bound)

    def describe(self) -> str:
        """As `kubectl -l` takes it, always the same for the same condition."""
        values = sorted(self.values)
        if self.operator in ("exists", "absent"):
            return self.key if self.operator == "exists" else f"!{self.key}"
        if len(values) == 1 and self.operator in ("in", "notin"):
            return f"{self.key}{'=' if self.operator == 'in' else '!='}{values[0]}"
        return f"{self.key} {self.operator} ({','.join(values)})"


class LabelSelectorRequirement(Model):
    """As metav1.LabelSelectorRequirement."""

    key: str = Field(max_length=317)
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = Field(
        default_factory=list, max_length=100, description="For In and NotIn at least one, for the others none."
    )


class LabelSelector(Model):
    """As metav1.LabelSelector: everything that is named here must hold."""

    match_labels: dict[str, str] = Field(default_factory=dict, max_length=32)
    match_expressions: list[LabelSelectorRequirement] = Field(default_factory=list, max_length=32)

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """The conditions, each once and in a fixed order: two selectors that say the same are equal. () = there is none."""
        found = {Requirement(key, "in", frozenset({value})) for key, value in self.match_labels.items()}
        found |= {Requirement(e.key, _WORDS[e.operator], frozenset(e.values)) for e in self.match_expressions}
        return tuple(sorted(found, key=Requirement.describe))


def selector_of(requirements: Iterable[Requirement]) -> LabelSelector:
    """The shortest selector that says this. Raises KeyError for gt and lt, which a resource cannot hold."""
    labels, expressions = {}, []
    for requirement in sorted(set(requirements), key=Requirement.describe):
        values = sorted(requirement.values)
        if requirement.operator == "in" and len(values) == 1 and requirement.key not in labels:
            labels[requirement.key] = values[0]
        else:
            operator = _OPERATORS[requirement.operator]
            expressions.append(LabelSelectorRequirement(key=requirement.key, operator=operator, values=values))
    return LabelSelector(match_labels=labels, match_expressions=expressions)


def describe_selector(requirements: Iterable[Requirement]) -> str:
    return ",".join(requirement.describe() for requirement in requirements)


def is_selected(requirements: Iterable[Requirement], labels: Mapping[str, str]) -> bool:
    """Whether all hold. No condition selects everything: whoever gives rights by it asks for one first."""
    return all(requirement.is_met(labels.get(requirement.key)) for requirement in requirements)
