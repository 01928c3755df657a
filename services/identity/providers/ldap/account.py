"""What a directory's entry says of an account: its immutable id, and whether it is in use. Pure.

Sources: MS-ADTS 2.2.16 (userAccountControl), MS-ADTS 2.3.4.2 (objectGUID's byte order), draft-behera-ldap-password-policy, FreeIPA and 389-ds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

Attributes = Mapping[str, Sequence[bytes]]
"""Lower-case attribute name → values, as they came."""
_DISABLED, _WINDOWS_EPOCH = 0x2, datetime(1601, 1, 1, tzinfo=UTC)
_NEVER_EXPIRES = (0, 0x7FFFFFFFFFFFFFFF)
_LOCKED_FOR_EVER = "000001010000Z"


def text_of(attributes: Attributes, name: str) -> str:
    """The first value as text; empty when there is none or it is no text."""
    values = attributes.get(name.lower(), ())
    try:
        return values[0].decode("utf-8") if values else ""
    except UnicodeDecodeError:
        return ""


def id_of(attributes: Attributes, name: str) -> str:
    """The immutable id in its canonical text; empty when the entry has none. Binary GUIDs become UUIDs."""
    values = attributes.get(name.lower(), ())
    if not values or not values[0]:
        return ""
    if name.lower() == "objectguid":
        return str(UUID(bytes_le=values[0])) if len(values[0]) == 16 else ""
    return (
        text_of(attributes, name).strip().lower()
        if "uuid" in name.lower() or "uniqueid" in name.lower()
        else text_of(attributes, name)
    )


def why_unusable(attributes: Attributes, now: datetime) -> str:
    """Why this account may not sign in, in words for its owner; empty = it may."""
    control = _number(attributes, "userAccountControl")
    if control is not None and control & _DISABLED:
        return "your account is disabled in the directory"
    if text_of(attributes, "nsAccountLock").lower() == "true":
        return "your account is disabled in the directory"
    expires = _number(attributes, "accountExpires")
    if expires is not None and expires not in _NEVER_EXPIRES and _from_ticks(expires) <= now:
        return "your account has expired in the directory"
    days = _number(attributes, "shadowExpire")
    if days is not None and days >= 0 and datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=min(days, 10**6)) <= now:
        return "your account has expired in the directory"
    until = _generalized_time(text_of(attributes, "krbPrincipalExpiration"))
    if until is not None and until <= now:
        return "your account has expired in the directory"
    if text_of(attributes, "pwdAccountLockedTime") == _LOCKED_FOR_EVER:
        return "your account is locked in the directory"
    return ""


def primary_group_sid(attributes: Attributes) -> bytes:
    """SID of the group that a Windows account is in without being its member (Domain Users); empty = none."""
    sid, group = attributes.get("objectsid", ()), _number(attributes, "primaryGroupID")
    if not sid or group is None or len(sid[0]) < 12:
        return b""
    return sid[0][:-4] + group.to_bytes(4, "little")


def _number(attributes: Attributes, name: str) -> int | None:
    try:
        return int(text_of(attributes, name))
    except ValueError:
        return None


def _from_ticks(ticks: int) -> datetime:
    """Windows' file time: steps of 100 ns since 1601."""
    try:
        return _WINDOWS_EPOCH + timedelta(microseconds=ticks // 10)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _generalized_time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
