"""Subjects with wildcards: what of a subject a pattern leaves open. `*` is one part, `>` one or more at the end."""

from __future__ import annotations


def match(pattern: str, subject: str) -> tuple[str, ...] | None:
    """The values of the pattern's wildcards, in order (`>` gives its parts joined by dots), or None where it doesn't match."""
    wanted = pattern.split(".")
    given = subject.split(".")
    values: list[str] = []
    for index, part in enumerate(wanted):
        if part == ">":
            return (*values, ".".join(given[index:])) if len(given) > index else None
        if index >= len(given):
            return None
        if part == "*":
            values.append(given[index])
        elif part != given[index]:
            return None
    return tuple(values) if len(given) == len(wanted) else None
