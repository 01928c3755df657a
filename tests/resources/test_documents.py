"""What a stored and a served document look like: private parts, unknown fields, conditions, names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from libs.common import errors
from libs.common.resources import codec
from libs.common.resources.clusters import Cluster, ClusterStatus
from libs.common.resources.identity import User, UserPrivate
from libs.common.resources.meta import ObjectMeta, check_label, check_name
from libs.common.resources.registry import BY_PLURAL, RESOURCE_TYPES, field_at
from libs.common.resources.unknown import find_unknown_fields


def user() -> User:
    return User(metadata=ObjectMeta(name="ada", uid="u1"), private=UserPrivate(password_hash="$argon2id$x"))


def test_private_part_is_stored_and_never_served():
    stored = codec.encode(user())
    assert codec.decode(User, stored, 7).private.password_hash == "$argon2id$x"
    assert "argon2" not in str(codec.to_document(user()))
    assert "argon2" not in str(codec.decode_document(stored, 7))


def test_resource_version_is_the_revision_and_is_not_stored():
    written = user()
    written.metadata.resource_version = "3"
    assert codec.decode(User, codec.encode(written), 9).metadata.resource_version == "9"


def test_operation_id_travels_with_the_value():
    assert codec.operation_id(codec.encode(user(), "op-1")) == "op-1"


@pytest.mark.parametrize("value", [b"", b"\xff\xff", b"\x81\xa1v\x63", b"\x01"])
def test_bytes_that_are_no_object_are_a_clear_error(value: bytes):
    with pytest.raises(errors.Internal):
        codec.decode(User, value, 1)


def test_unknown_fields_are_found_with_their_paths():
    document = {
        "metadata": {"name": "a", "labels": {"any": "thing"}, "ownerReferences": [{"kind": "X", "odd": 1}]},
        "spec": {"imported": {"y": 1}, "displayNam": "typo"},
    }
    assert find_unknown_fields(Cluster, document) == [
        "metadata.ownerReferences[0].odd",
        "spec.imported.y",
        "spec.displayNam",
    ]


def test_private_is_unknown_to_writers():
    assert find_unknown_fields(User, {"private": {"passwordHash": "mine"}}) == ["private"]


def test_reader_ignores_what_a_newer_writer_added():
    assert Cluster.model_validate({"spec": {"fromTheFuture": 1}, "metadata": {"name": "a"}}).name == "a"


def test_condition_keeps_its_transition_time_while_its_status_stays(clock):
    status = ClusterStatus()
    assert status.set_condition("Connected", True, "Heartbeat", "ok", clock())
    began = status.condition("Connected").last_transition_time
    clock.forward(60)
    assert not status.set_condition("Connected", True, "Heartbeat", "ok", clock())
    assert status.set_condition("Connected", True, "Heartbeat", "still ok", clock())
    assert status.condition("Connected").last_transition_time == began
    assert status.set_condition("Connected", False, "Silent", "no heartbeat", clock())
    assert status.condition("Connected").last_transition_time == clock()


@pytest.mark.parametrize("name", ["a", "a.b", "node-1.example", "0"])
def test_good_names(name: str):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "a..b", ".a", "a.", "-a", "a_b", "a/b", "a b", "ä", "a" * 254, "a\n"])
def test_bad_names(name: str):
    with pytest.raises(ValueError, match="RFC 1123"):
        check_name(name)


@given(st.text(max_size=70))
def test_a_label_is_always_a_single_subject_token(text: str):
    try:
        label = check_label(text)
    except ValueError:
        return
    assert not set(label) & set(". *>/\\ \t\r\n")
    assert len(label) <= 63


def test_every_kind_round_trips_through_its_columns():
    for type_ in RESOURCE_TYPES:
        assert BY_PLURAL[type_.plural].kind == type_.model.KIND
        for column in type_.columns:
            assert column.name


def test_field_at_misses_quietly():
    assert field_at({"a": {"b": 1}}, "a.b") == 1
    assert field_at({"a": 1}, "a.b.c") is None


def test_a_token_without_expiry_is_invalid():
    with pytest.raises(ValidationError):
        BY_PLURAL["tokens"].model.model_validate({"metadata": {"name": "t"}, "spec": {"user": "a", "userUid": "u"}})


def test_a_tombstone_keeps_the_object_and_not_its_private_part():
    last = codec.encode(user(), "op-2", deleted=True)
    assert b"argon2" not in last
    assert codec.decode_document(last, 8)["metadata"]["name"] == "ada"
    assert codec.operation_id(last) == "op-2"
