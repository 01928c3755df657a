"""Kubernetes quantities that mean the same: an API server writes `0.5` as `500m`, which is no drift. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_QUANTITY = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,3}))?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
KINDS = ("ResourceQuota", "LimitRange")
"""Kinds whose spec holds quantities and no other text that reads as one."""


def normalise(value: Any) -> Any:
    """The value with each text that is a quantity replaced by its number."""
    if isinstance(value, Mapping):
        return {key: normalise(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normalise(item) for item in value]
    if isinstance(value, str):
        found = _QUANTITY.fullmatch(value)
        if found is not None:
            number, suffix, exponent = found.groups()
            if suffix in _BINARY:
                return Decimal(number) * 1024 ** _BINARY[suffix]
            return Decimal(number).scaleb(_DECIMAL[suffix] if suffix else int(exponent or 0))
    return value
