"""LDAP search filters (RFC 4515) from values that strangers give: every value is escaped, here and nowhere else. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from services.identity.providers.ldap.layout import Layout

_SPECIAL = {ord(c): f"\\{ord(c):02x}" for c in "\\*()\x00"}


def escape(value: str) -> str:
    """A value for a filter, in which nothing means anything but itself."""
    return value.translate(_SPECIAL)


def escape_bytes(value: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in value)


def escape_rdn(value: str) -> str:
    """A value for a distinguished name (RFC 4514)."""
    escaped = "".join(f"\\{c}" if c in '\\,+"<>;=#' else f"\\{ord(c):02x}" if ord(c) < 32 else c for c in value)
    if escaped.startswith(" "):
        escaped = "\\" + escaped
    return escaped[:-1] + "\\ " if escaped.endswith(" ") and not escaped.endswith("\\ ") else escaped


def every(*parts: str) -> str:
    """All that are given, none empty, must hold."""
    given = [part for part in parts if part]
    return given[0] if len(given) == 1 else f"(&{''.join(given)})"


def some(parts: Iterable[str]) -> str:
    found = list(parts)
    return found[0] if len(found) == 1 else f"(|{''.join(found)})"


def users(layout: Layout, extra: str, *conditions: str) -> str:
    # Computers are users in Active Directory's schema.
    kind = f"(objectClass={layout.user_class})" + (
        "(!(objectClass=computer))" if layout.flavor == "activeDirectory" else ""
    )
    return every(*_split(kind), extra, *conditions)


def groups(layout: Layout, extra: str, *conditions: str) -> str:
    kind = f"(objectClass={layout.group_class})" if layout.group_class else _ANY_GROUP
    return every(kind, extra, *conditions)


_ANY_GROUP = "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=posixGroup)(objectClass=ipausergroup)(objectClass=group))"


def login(layout: Layout, name: str) -> str:
    """People who sign in with this name."""
    return some(f"({attribute}={escape(name)})" for attribute in layout.login)


def members(layout: Layout, values: Iterable[str]) -> str:
    """Groups that have one of these as a member."""
    return some(f"({layout.member}={escape(value)})" for value in values)


def contains(attributes: Iterable[str], text: str) -> str:
    """One of the attributes holds the text."""
    value = f"*{escape(text)}*" if text else "*"
    return some(f"({attribute}={value})" for attribute in dict.fromkeys(attributes))


def _split(kind: str) -> tuple[str, ...]:
    first, separator, rest = kind.partition(")(")
    return (first + ")", "(" + rest) if separator else (kind,)
