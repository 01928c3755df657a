"""Label and field selectors as `kubectl -l` and `--field-selector` send them. Raises BadRequest for what is no selector.

Pure; lists and watches call `parse_selectors` once for a request and `matches` once for an object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libs.common import errors
from libs.common.apiserver.metadata import label_value_error, qualified_name_error
from libs.common.resources.registry import ResourceType, field_at
from libs.common.resources.selectors import Requirement

MAX_LENGTH = 8192
_SET = re.compile(r"(?P<key>\S+)\s+(?P<op>in|notin)\s*\(\s*(?P<values>[^()]*?)\s*\)")
_OPERATORS = re.compile(r"\s*(==|!=|=|>|<)\s*")


@dataclass(frozen=True, slots=True)
class Selectors:
    """What a list or watch asks for. Empty matches all."""

    labels: Sequence[Requirement] = ()
    fields: Sequence[Requirement] = ()

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)

    def matches(self, document: Mapping[str, Any]) -> bool:
        labels = document.get("metadata", {}).get("labels") or {}
        return all(r.is_met(labels.get(r.key)) for r in self.labels) and all(
            r.is_met(_text(field_at(document, r.key))) for r in self.fields
        )

    @property
    def exact_name(self) -> str | None:
        """The one name that can match, if the selector pins it."""
        return self.exact("metadata.name")

    def exact(self, path: str) -> str | None:
        """The one value of a field that can match, if the selector pins it."""
        for requirement in self.fields:
            if requirement.key == path and requirement.operator == "in":
                return next(iter(requirement.values))
        return None


def parse_selectors(rtype: ResourceType, labels: str = "", fields: str = "") -> Selectors:
    """Both selectors of a request for this kind."""
    for text in (labels, fields):
        if len(text) > MAX_LENGTH:
            raise errors.BadRequest(f"the selector is longer than {MAX_LENGTH} characters")
    return Selectors(parse_labels(labels), parse_fields(rtype, fields))


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """`a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`."""
    # One space says as much as thousands, with which the patterns below would take minutes.
    plain = " ".join(text.split())
    return tuple(_label(part.strip(), text) for part in _split(plain)) if plain else ()


def parse_fields(rtype: ResourceType, text: str) -> tuple[Requirement, ...]:
    """`metadata.name=a,spec.user!=b`; only the fields that the kind declares. `\\,`, `\\=` and `\\\\` stand for themselves."""
    found = []
    for part in re.findall(r"(?:[^,\\]|\\.|\\$)+", text):
        if not part.strip():
            continue
        match = re.fullmatch(r"((?:[^=!\\]|\\.)*)(==|!=|=)((?:[^\\]|\\.)*)", part.strip())
        if match is None:
            raise errors.BadRequest(f"invalid field selector {text!r}: {part!r} can't be understood")
        key, operator, value = match[1], match[2], re.sub(r"\\(.)", r"\1", match[3])
        if key != "metadata.name" and key not in rtype.selectable:
            known = ", ".join(("metadata.name", *rtype.selectable))
            raise errors.BadRequest(f'field label not supported: "{key}" for {rtype.plural}: supported are {known}')
        found.append(Requirement(key, "notin" if operator == "!=" else "in", frozenset({value})))
    return tuple(found)


def _split(text: str) -> list[str]:
    """Parts between commas that stand outside parentheses."""
    parts, depth, current = [], 0, ""
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += char
    return [*parts, current]


def _label(part: str, whole: str) -> Requirement:
    if part.startswith("!"):
        return Requirement(_key(part[1:].strip(), whole), "absent")
    if (found := _SET.fullmatch(part)) is not None:
        values = frozenset(_value(v.strip(), whole) for v in found["values"].split(","))
        return Requirement(_key(found["key"], whole), found["op"], values)
    key, operator, value = (*_OPERATORS.split(part, maxsplit=1), "", "")[:3]
    if not operator:
        return Requirement(_key(part, whole), "exists")
    if operator in "<>":
        if not re.fullmatch(r"-?\d{1,18}", value):
            raise errors.BadRequest(
                f"unable to parse label selector {whole!r}: {value!r} must be an integer for {operator!r}"
            )
        return Requirement(_key(key, whole), "gt" if operator == ">" else "lt", frozenset({value}))
    return Requirement(_key(key, whole), "notin" if operator == "!=" else "in", frozenset({_value(value, whole)}))


def _key(key: str, whole: str) -> str:
    if (why := qualified_name_error(key)) is not None:
        raise errors.BadRequest(f"unable to parse label selector {whole!r}: key {key!r}: {why}")
    return key


def _value(value: str, whole: str) -> str:
    if (why := label_value_error(value)) is not None:
        raise errors.BadRequest(f"unable to parse label selector {whole!r}: value {value!r}: {why}")
    return value


def _text(value: Any) -> str:
    """A field as a selector compares it: absent is empty, booleans as JSON writes them."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
