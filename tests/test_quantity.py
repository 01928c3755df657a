from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.quantity import MAX_NANOS, NANOS, format_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("0", 0), ("1", NANOS), ("+1.5", 1_500_000_000), ("500m", 500_000_000), (".5", 500_000_000), ("5.", 5 * NANOS), ("1e3", 1000 * NANOS),
        ("1E3", 1000 * NANOS), ("1E", 10**18 * NANOS), ("1e-3", 1_000_000), ("2Ki", 2048 * NANOS), ("1.5Gi", 3 * 2**29 * NANOS),
        ("1n", 1), ("0.1n", 1), ("-1.1n", -2), ("100u", 100_000), ("9223372036854775807", MAX_NANOS), ("-2", -2 * NANOS),
    ],
)  # fmt: skip
def test_quantities_mean_what_they_mean_in_kubernetes(text, nanos):
    assert parse_quantity(text).nanos == nanos


@pytest.mark.parametrize(
    "text",
    ["", ".", "m", "1 ", " 1", "1K", "1ki", "1mi", "1e", "1e1.5", "1Gb", "--1", "1.2.3", "0x1", "1_0", "١", "1\n", "NaN", "inf",
     "9223372036854775808", "8Ei", "1e19", "1e200", "1" * 65],
)  # fmt: skip
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match="must be a quantity"):
        parse_quantity(text)


@given(st.integers(-MAX_NANOS, MAX_NANOS), st.booleans())
def test_what_is_formatted_reads_as_the_same(nanos, binary):
    assert parse_quantity(format_quantity(nanos, binary=binary)).nanos == nanos


@given(st.integers(0, 10**9), st.sampled_from(["n", "u", "m", "", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_parsing_is_exact(number, suffix):
    unit = {
        "n": Decimal("1e-9"),
        "u": Decimal("1e-6"),
        "m": Decimal("1e-3"),
        "": 1,
        "k": 10**3,
        "M": 10**6,
        "G": 10**9,
        "Ki": 2**10,
        "Mi": 2**20,
        "Gi": 2**30,
    }
    assert parse_quantity(f"{number}{suffix}").nanos == int(number * unit[suffix] * NANOS)


@given(st.text(alphabet="0123456789.+-eEKMGTPEimunk ", max_size=8))
def test_any_text_is_read_or_refused(text):
    try:
        parsed = parse_quantity(text)
    except ValueError:
        return
    assert abs(parsed.nanos) <= MAX_NANOS
