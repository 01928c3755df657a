"""What identifies a machine, and what only looks as if it did. Pure; node_registry decides by it, the gateway names who has the same.

Three identifiers, the strongest first: providerID (the cloud's or hypervisor's), systemUUID (the firmware's), machineID (the disk's).
"""

from __future__ import annotations

import re

from libs.common.resources.nodes import NodeStatus

PROVIDER, SYSTEM, MACHINE = "providerID", "systemUUID", "machineID"
KINDS = (PROVIDER, SYSTEM, MACHINE)
Identifier = tuple[str, str]
"""Kind and normalized value."""

_HEX = re.compile(r"[0-9a-f]{32}")
_PLACEHOLDERS = frozenset({
    "03000200040005000006000700080009", "00020003000400050006000700080009", "0123456789abcdef0123456789abcdef",
    "00112233445566778899aabbccddeeff", "33221100554477668899aabbccddeeff", "12345678123456781234567812345678",
    "12345678123412341234123456789abc", "123456781234567890abcddeefaabbcc", "4c4c454400002010802080c04f202020",
    "4c4c454400001010801080c04f303030", "fefefefefefefefefefefefefefefefe", "0102030405060708090a0b0c0d0e0f10",
})  # fmt: skip
"""Values that makers of boards, firmware and images leave as they are, without dashes: they are on thousands of machines."""
_WORDS = frozenset({
    "uninitialized", "none", "unknown", "default", "defaultstring", "notsettable", "notpresent", "notspecified", "notavailable", "notapplicable",
    "tobefilledbyoem", "oem", "systemserialnumber", "systemproductname", "empty", "null", "n/a", "na", "0123456789", "12345678", "123456789", "1234567890",
})  # fmt: skip
_MIN_LENGTH = 8
_MIN_DIFFERENT = 4


def find_identifiers(node_name: str, status: NodeStatus) -> dict[str, str]:
    """Kind → value, of those that can tell machines apart."""
    found = {
        PROVIDER: _provider(status.provider_id, node_name), SYSTEM: _usable(status.system_uuid), MACHINE: _usable(status.machine_id)
    }  # fmt: skip
    return {kind: value for kind, value in found.items() if value}


def is_placeholder(value: str) -> bool:
    """Whether a value says nothing about a machine: all of one digit, or one that is known to be left as it came."""
    plain = value.lower().replace("-", "").replace(" ", "").replace(".", "")
    if plain in _WORDS or len(plain) < _MIN_LENGTH:
        return True
    return len(set(plain)) < _MIN_DIFFERENT or plain in _PLACEHOLDERS


def _usable(value: str) -> str:
    plain = value.strip().lower()
    short = plain.replace("-", "")
    return "" if is_placeholder(plain) else short if _HEX.fullmatch(short) else plain


def _provider(value: str, node_name: str) -> str:
    """A providerID that ends with the node's own name (k3s, kind, GCE) says no more than the name: a machine made anew has it, too."""
    last = value.strip().rstrip("/").rpartition("/")[2]
    return "" if not last or last.lower() == node_name.lower() or is_placeholder(value) else value.strip()
