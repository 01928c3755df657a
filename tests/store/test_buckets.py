from __future__ import annotations

from libs.common.contracts.permissions import SHORT_LIVED
from libs.common.resources.registry import BUCKETS
from libs.common.store.buckets import SPECS, diff_config


def test_every_kinds_bucket_is_in_the_table() -> None:
    assert set(SPECS) == {*BUCKETS, *SHORT_LIVED}


def test_a_bucket_never_drops_what_it_has_to_make_room() -> None:
    for spec in SPECS.values():
        config = spec.to_config(1)
        assert config["discard"] == "new"
        assert config["max_bytes"] > 0
        assert config["allow_direct"] is False


def test_what_the_server_leaves_out_is_no_difference() -> None:
    assert (
        diff_config({"name": "a", "max_bytes": 5}, {"name": "a", "max_bytes": 5, "max_age": 0, "deny_purge": False})
        == []
    )


def test_differences_are_named() -> None:
    have = {"name": "a", "max_bytes": 5, "allow_direct": True, "unknown": 1}
    assert diff_config(have, {"name": "a", "max_bytes": 6, "allow_direct": False}) == ["max_bytes", "allow_direct"]
