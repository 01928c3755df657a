"""Kubernetes' quantities (`500m`, `2Gi`, `1e3`): from text to whole billionths and back.

The grammar is that of `k8s.io/apimachinery/pkg/api/resource`; as there, what is finer than a billionth is rounded away from zero.
What Kubernetes would silently cut to its highest number is refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

NANOS = 10**9
MAX_NANOS = (2**63 - 1) * NANOS
MAX_TEXT = 64
MEBI = 2**20

_FORM = re.compile(r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3}|[KMGTPE]i|[numkMGTPE]?)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


@dataclass(frozen=True, slots=True)
class Quantity:
    """An amount in billionths. `binary`: it was written with Ki, Mi, … and is best shown so."""

    nanos: int
    binary: bool = False

    @property
    def is_whole(self) -> bool:
        return self.nanos % NANOS == 0


def parse_quantity(text: str) -> Quantity:
    """Raises ValueError, with what would be right, for what is no quantity or is too large."""
    form = _FORM.fullmatch(text) if len(text) <= MAX_TEXT else None
    if form is None:
        raise ValueError("must be a quantity such as 500m, 2, 1.5 or 2Gi")
    sign, digits, suffix = form.groups()
    if suffix in _BINARY:
        scale = Fraction(2 ** _BINARY[suffix])
    else:
        exponent = int(suffix[1:]) if suffix[:1] in ("e", "E") and len(suffix) > 1 else _DECIMAL[suffix]
        if not -128 <= exponent <= 127:
            raise ValueError("must be a quantity with an exponent from -128 to 127")
        scale = Fraction(10) ** exponent
    exact = Fraction(digits.rstrip(".") if digits.endswith(".") else digits) * scale * NANOS
    nanos = -(-exact.numerator // exact.denominator)
    if nanos > MAX_NANOS:
        raise ValueError("must be a quantity of at most 9223372036854775807")
    return Quantity(-nanos if sign == "-" else nanos, suffix in _BINARY)


def format_quantity(nanos: int, *, binary: bool = False) -> str:
    """The shortest text of whole digits and one suffix; `binary` uses Ki, Mi, … where they fit."""
    if nanos == 0:
        return "0"
    if binary and nanos % (NANOS * 1024) == 0:
        whole = nanos // NANOS
        for suffix, shift in reversed(_BINARY.items()):
            if whole % (1 << shift) == 0:
                return f"{whole >> shift}{suffix}"
    for suffix, exponent in reversed(_DECIMAL.items()):
        unit = 10 ** (exponent + 9)
        if nanos % unit == 0:
            return f"{nanos // unit}{suffix}"
    raise AssertionError("every whole number of billionths ends in n at the latest")
