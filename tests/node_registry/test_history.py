"""What is kept of what happened: everything that matters, once, and never more than fits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from libs.common.resources.node_history import NodeHistory
from libs.common.store.record import pack_record
from services.node_registry.history import (
    COALESCE_S,
    MAX_AT_ONCE,
    MAX_CHANGES,
    MAX_VALUE,
    add_changes,
    diff_facts,
    digest,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def grow(history: NodeHistory, before: dict[str, str], after: dict[str, str], at: float = 0) -> NodeHistory:
    return add_changes(history, diff_facts(before, after, later(at)))


def test_a_change_says_what_from_and_to():
    history = grow(NodeHistory(), {"kubeletVersion": "v1", "labels.a": "x"}, {"kubeletVersion": "v2"})
    assert [(c.what, c.before, c.after) for c in history.changes] == [
        ("kubeletVersion", "v1", "v2"),
        ("labels.a", "x", ""),
    ]


def test_what_flaps_is_one_entry_that_counts():
    history = NodeHistory()
    for n in range(20):
        history = grow(history, {"ready": str(n % 2 == 0)}, {"ready": str(n % 2 == 1)}, n * 30)
    (only,) = history.changes
    assert (only.count, only.before, only.after, only.time, only.until) == (20, "True", "True", NOW, later(570))
    history = grow(history, {"ready": "True"}, {"ready": "False"}, 570 + COALESCE_S + 1)
    assert len(history.changes) == 2


def test_labels_never_wash_a_reboot_out_of_the_history():
    history = grow(NodeHistory(), {"boot": "1"}, {"boot": "2"})
    for n in range(500):
        history = grow(history, {}, {f"labels.l{n}": "x"}, n)
    assert len(history.changes) == MAX_CHANGES
    assert history.changes[0].what == "boot"
    assert history.dropped == 451


def test_very_many_changes_at_once_are_counted_and_what_matters_comes_first():
    after = {f"labels.l{n}": "x" for n in range(100)} | {"kubeletVersion": "v2"}
    changes = diff_facts({}, after, NOW)
    assert changes[0].what == "kubeletVersion"
    assert changes[-1].after == f"{101 - MAX_AT_ONCE} more changes"


FACTS = st.dictionaries(
    st.sampled_from(["boot", "ready", *(f"labels.{n}" for n in range(30))]), st.text(max_size=400), max_size=20
)


@given(st.lists(st.tuples(FACTS, st.floats(0, 3000)), max_size=40))
def test_a_history_stays_small_and_in_order_of_its_last_moments(steps):
    history, before, at = NodeHistory(), {}, 0.0
    for after, pause in steps:
        at += pause
        history = grow(history, before, after, at)
        before = after
    assert len(history.changes) <= MAX_CHANGES
    assert all(len(c.before) <= MAX_VALUE and len(c.after) <= MAX_VALUE for c in history.changes)
    assert [c.last for c in history.changes] == sorted(c.last for c in history.changes)
    assert len(pack_record(history.to_document())) < 64 * 1024


@given(FACTS, FACTS)
def test_equal_facts_change_nothing_and_have_one_digest(one, other):
    assert diff_facts(one, dict(reversed(one.items())), NOW) == []
    assert (digest(one) == digest(other)) == (one == other)
