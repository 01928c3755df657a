"""Server-side apply: ownership, conflicts, removal, and the FieldsV1 form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common import errors
from libs.common.apiserver.apply import LAST_APPLIED, apply
from libs.common.apiserver.managed_fields import (
    ANCIENT,
    MAX_UPDATE_MANAGERS,
    Manager,
    leaves,
    parse_fields,
    parse_managers,
    record_update,
    render_fields,
    render_managers,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = {"apiVersion": "management.herdsman.dev/v1", "kind": "User", "metadata": {"name": "eve", "uid": "u"}}


def doc(spec=None, **metadata):
    return {**BASE, "metadata": {**BASE["metadata"], **metadata}, "spec": spec or {}}


def owners(managers, path):
    return sorted(m.name for m in managers if path in m.fields)


def test_what_a_manager_no_longer_declares_goes_unless_another_holds_it():
    live, managers = apply(doc(), [], doc({"a": 1, "b": {"c": 2}}), "x", NOW)
    live, managers = apply(live, managers, doc({"a": 1}), "y", NOW)
    live, managers = apply(live, managers, doc({}), "x", NOW)
    assert live["spec"] == {"a": 1}
    live, managers = apply(live, managers, doc({}), "y", NOW)
    assert live["spec"] == {}


def test_another_value_of_another_manager_is_a_conflict_and_force_takes_it():
    live, managers = apply(doc(), [], doc({"a": 1, "b": 2}), "x", NOW)
    with pytest.raises(errors.Conflict) as caught:
        apply(live, managers, doc({"a": 9}), "y", NOW)
    assert caught.value.message == 'Apply failed with 1 conflict: conflict with "x": .spec.a'
    assert [(c.reason, c.field) for c in caught.value.causes] == [("FieldManagerConflict", ".spec.a")]
    live, managers = apply(live, managers, doc({"a": 9}), "y", NOW, force=True)
    assert live["spec"] == {"a": 9, "b": 2}
    assert owners(managers, ("f:spec", "f:a")) == ["y"]
    assert owners(managers, ("f:spec", "f:b")) == ["x"]


def test_a_scalar_where_another_holds_a_map_is_a_conflict():
    live, managers = apply(doc(), [], doc({"a": {"b": 1}}), "x", NOW)
    with pytest.raises(errors.Conflict):
        apply(live, managers, doc({"a": 1}), "y", NOW)
    live, managers = apply(live, managers, doc({"a": 1}), "y", NOW, force=True)
    assert live["spec"] == {"a": 1}


def test_conditions_are_merged_by_type_and_finalizers_as_a_set():
    live, managers = apply(doc(finalizers=["a/b"]), [], doc(finalizers=["c/d"]), "x", NOW)
    assert live["metadata"]["finalizers"] == ["a/b", "c/d"]
    live, _ = apply(live, managers, doc(), "x", NOW)
    assert live["metadata"]["finalizers"] == ["a/b"]
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    busy = {"status": {"conditions": [{"type": "Busy", "status": "False"}]}}
    live, managers = apply({**doc(), **ready}, [], busy, "x", NOW, subresource="status")
    assert [c["type"] for c in live["status"]["conditions"]] == ["Ready", "Busy"]
    live, _ = apply(live, managers, {"status": {}}, "x", NOW, subresource="status")
    assert live["status"]["conditions"] == [{"type": "Ready", "status": "True"}]
    live, managers = apply(live, [], {"status": {"conditions": [{"type": "Ready"}]}}, "x", NOW, subresource="status")
    live, _ = apply(live, managers, {"status": {}}, "x", NOW, subresource="status")
    assert live["status"]["conditions"] == [{"type": "Ready", "status": "True"}]


def test_a_status_in_a_declaration_for_the_main_resource_counts_for_nothing():
    live, managers = apply({**doc(), "status": {"a": 1}}, [], {**doc({"b": 1}), "status": {"a": 2}}, "x", NOW)
    assert live["status"] == {"a": 1}
    assert not any(p[0] == "f:status" for m in managers for p in m.fields)


def test_kubectl_may_take_over_what_its_client_side_apply_set_and_nobody_changed():
    annotations = {LAST_APPLIED: '{"spec":{"a":1,"b":1}}'}
    live = doc({"a": 1, "b": 5}, annotations=annotations)
    managers = record_update([], {}, live, "kubectl-client-side-apply", NOW)
    merged, _ = apply(live, managers, doc({"a": 2}), "kubectl", NOW)
    assert merged["spec"]["a"] == 2
    for name, spec in (("kubectl", {"b": 2}), ("other", {"a": 2})):
        with pytest.raises(errors.Conflict):
            apply(live, managers, doc(spec), name, NOW)


def test_updates_take_over_what_they_change_and_forget_what_they_remove():
    live, managers = apply(doc(), [], doc({"a": 1, "b": 2, "c": 3}), "x", NOW)
    changed = doc({"a": 9, "b": 2})
    managers = record_update(managers, live, changed, "editor", NOW)
    assert owners(managers, ("f:spec", "f:a")) == ["editor"]
    assert owners(managers, ("f:spec", "f:b")) == ["x"]
    assert owners(managers, ("f:spec", "f:c")) == []


def test_the_number_of_updaters_is_bounded():
    live, managers = doc(), []
    for number in range(MAX_UPDATE_MANAGERS + 5):
        changed = doc({**live["spec"], f"f{number}": number})
        managers = record_update(managers, live, changed, f"m{number}", NOW + timedelta(seconds=number))
        live = changed
    assert len(managers) <= MAX_UPDATE_MANAGERS + 1
    assert owners(managers, ("f:spec", "f:f0")) == [ANCIENT]


def test_fields_in_the_form_of_kubernetes():
    tree = {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:status": {"f:conditions": {'k:{"type":"Ready"}': {".": {}, "f:status": {}}}},
    }
    assert parse_fields(tree) == {
        ("f:metadata", "f:labels", "f:a"),
        ("f:status", "f:conditions", 'k:{"type":"Ready"}', "f:status"),
    }
    managers = [Manager("a", "Apply", frozenset({("f:spec", "f:x")}), "2026-01-01T00:00:00Z")]
    assert parse_managers({"metadata": {"managedFields": render_managers(managers)}}) == managers
    assert parse_managers({"metadata": {"managedFields": [{}, {"manager": "x", "fieldsType": "FieldsV9"}]}}) == []


SPEC = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
).filter(lambda value: isinstance(value, dict))


@given(SPEC)
def test_rendering_and_parsing_fields_are_inverse(spec):
    fields = frozenset(leaves(doc(spec)))
    assert parse_fields(render_fields(fields)) == fields


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["x", "y"]), SPEC), max_size=6))
def test_after_a_forced_apply_everything_declared_is_there_and_owned(steps):
    live, managers = doc(), []
    for name, spec in steps:
        live, managers = apply(live, managers, doc(spec), name, NOW, force=True)
        have, wanted = leaves(live), leaves(doc(spec))
        solid = {p: value for p, value in wanted.items() if value not in ({}, [])}
        assert {p: have.get(p) for p in solid} == solid
        (mine,) = [m for m in managers if m.name == name] or [Manager(name, "Apply", frozenset())]
        assert mine.fields == frozenset(wanted)
    # Everybody lets go: nothing is left.
    for name in ("x", "y"):
        live, managers = apply(live, managers, doc(), name, NOW)
    assert leaves({"spec": live["spec"]}) in ({}, {("f:spec",): {}})
