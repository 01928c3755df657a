"""JSON merge patch and JSON patch."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import errors
from libs.common.apiserver.patch import json_patch, merge_patch

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("document", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}), ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}), ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}), ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        (["a"], {"a": "b", "c": None}, {"a": "b"}), ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}), ({"a": 1}, ["c"], ["c"]),
    ],
)  # fmt: skip
def test_merge_patch_as_rfc_7386_has_it(document, patch, expected):
    assert merge_patch(document, patch) == expected


@pytest.mark.parametrize(
    ("document", "patch", "expected"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"foo": "bar", "baz": "qux"}),
        ({"foo": ["a", "b"]}, [{"op": "add", "path": "/foo/1", "value": "x"}], {"foo": ["a", "x", "b"]}),
        ({"foo": ["a"]}, [{"op": "add", "path": "/foo/-", "value": "x"}], {"foo": ["a", "x"]}),
        ({"foo": 1, "b": 2}, [{"op": "remove", "path": "/b"}], {"foo": 1}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": None}], {"a": None}),
        ({"a": {"b": 1}, "c": {}}, [{"op": "move", "from": "/a/b", "path": "/c/d"}], {"a": {}, "c": {"d": 1}}),
        ({"a": [1]}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": [1], "b": [1]}),
        (
            {"a/b": 1, "m~n": 2},
            [{"op": "test", "path": "/a~1b", "value": 1}, {"op": "remove", "path": "/m~0n"}],
            {"a/b": 1},
        ),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1.0}], {"a": 1}),
    ],
)
def test_json_patch_as_rfc_6902_has_it(document, patch, expected):
    before = copy.deepcopy(document)
    assert json_patch(document, patch) == expected
    assert document == before


@pytest.mark.parametrize(
    ("patch", "family"),
    [
        ({"op": "add"}, errors.BadRequest), (["x"], errors.BadRequest), ([{"op": "add", "path": "/a"}], errors.BadRequest),
        ([{"op": "odd", "path": "/a"}], errors.BadRequest), ([{"op": "remove", "path": "a"}], errors.BadRequest),
        ([{"op": "move", "path": "/a"}], errors.BadRequest), ([{"op": "remove", "path": "/x"}], errors.Invalid),
        ([{"op": "test", "path": "/a", "value": True}], errors.Invalid), ([{"op": "add", "path": "/l/9", "value": 1}], errors.Invalid),
        ([{"op": "add", "path": "/l/01", "value": 1}], errors.Invalid), ([{"op": "remove", "path": "/l/-"}], errors.Invalid),
        ([{"op": "move", "from": "/o", "path": "/o/x"}], errors.Invalid), ([{"op": "add", "path": "/a/b", "value": 1}], errors.Invalid),
        ([{"op": "test", "path": "/a", "value": 1}] * 10_001, errors.TooLarge),
        ([{"op": "add", "path": "/l/-", "value": "x" * 1000}] + [{"op": "copy", "from": "/l", "path": "/l/-"}] * 30, errors.TooLarge),
    ],
)  # fmt: skip
def test_json_patches_that_do_not_fit_or_blow_up_are_refused(patch, family):
    with pytest.raises(family):
        json_patch({"a": 1, "l": [1], "o": {"p": 1}}, patch)


def test_moves_cost_what_they_say_and_not_what_they_move():
    large = {str(number): [number] for number in range(20_000)}
    there_and_back = [{"op": "move", "from": "/a", "path": "/b"}, {"op": "move", "from": "/b", "path": "/a"}]
    # With a copy for each, this takes minutes of somebody's processor.
    assert json_patch({"a": large}, there_and_back * 5000) == {"a": large}


@given(JSON, JSON)
def test_merging_never_touches_the_original_and_is_idempotent(document, patch):
    before = copy.deepcopy(document)
    once = merge_patch(document, patch)
    assert document == before
    assert merge_patch(once, patch) == once
