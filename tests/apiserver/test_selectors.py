"""Label and field selectors."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import errors
from libs.common.apiserver.selectors import parse_fields, parse_labels, parse_selectors
from libs.common.resources.registry import BY_PLURAL

USERS = BY_PLURAL["users"]


def match(selector: str, **labels: str) -> bool:
    return parse_selectors(USERS, selector).matches({"metadata": {"labels": labels}})


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ("", {}, True), ("a=b", {"a": "b"}, True), ("a==b", {"a": "c"}, False), ("a=b", {}, False), ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False), ("a", {"a": ""}, True), ("a", {}, False), ("!a", {}, True), ("!a", {"a": "x"}, False),
        ("a in (b, c)", {"a": "c"}, True), ("a in (b,c),d", {"a": "c"}, False), ("a notin (b)", {}, True),
        ("a notin (b,c)", {"a": "c"}, False), ("a>3", {"a": "4"}, True), ("a>3", {"a": "x"}, False), ("a<3", {"a": "-2"}, True),
        ("x.io/a=b , c = d", {"x.io/a": "b", "c": "d"}, True), ("a=", {"a": ""}, True), ("a in ()", {"a": ""}, True),
    ],
)  # fmt: skip
def test_label_selectors(selector, labels, expected):
    assert match(selector, **labels) is expected


@pytest.mark.parametrize(
    "bad", ["=b", "a=b=c", "a in b", "a in (b", ",", "a,,b", "a>x", "-a", "a=b c", "/a", "A_/b=c", "a=" + "x" * 64]
)
def test_what_is_no_label_selector_is_400(bad):
    with pytest.raises(errors.BadRequest):
        parse_labels(bad)


def test_field_selectors_take_declared_fields_and_escapes():
    user = {"metadata": {"name": "a,b"}, "spec": {"enabled": False}}
    assert parse_selectors(USERS, "", r"metadata.name=a\,b,spec.enabled!=true").matches(user)
    assert parse_selectors(USERS, "", "metadata.name==x").exact_name == "x"
    for bad in ("metadata.name", "spec.displayName=x", "metadata.name>1", "metadata.name=a\\", "=x"):
        with pytest.raises(errors.BadRequest):
            parse_fields(USERS, bad)


@given(st.text(max_size=60))
def test_any_text_is_a_selector_or_400(text):
    for parse in (parse_labels, lambda t: parse_fields(USERS, t)):
        with contextlib.suppress(errors.BadRequest):
            parse(text)


@pytest.mark.parametrize("begin", ["a in (", "a", "a in", "a = "])
def test_a_selector_of_spaces_costs_no_more_than_another(begin):
    # Where it costs the third power of its length, this does not end.
    with contextlib.suppress(errors.BadRequest):
        parse_labels(begin + " " * 8000 + "x")
