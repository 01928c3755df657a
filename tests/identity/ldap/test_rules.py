from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import errors
from libs.common.resources.providers import DirectorySettings
from services.identity.providers.base import Group
from services.identity.providers.ldap import filters
from services.identity.providers.ldap.account import id_of, primary_group_sid, why_unusable
from services.identity.providers.ldap.layout import make_layout
from services.identity.providers.ldap.walk import BATCH, FoundGroup, ParentCache, walk_up

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SETTINGS = DirectorySettings(servers=["ldaps://x"], user_base="dc=x", ca="", bind_dn="cn=r")
WINDOWS = make_layout("activeDirectory", SETTINGS)


def ticks(moment: datetime) -> bytes:
    return str(int((moment - datetime(1601, 1, 1, tzinfo=UTC)).total_seconds()) * 10_000_000).encode()


@pytest.mark.parametrize(
    ("attributes", "word"),
    [
        ({"useraccountcontrol": [b"512"]}, ""),
        ({"useraccountcontrol": [b"514"]}, "disabled"),
        ({"nsaccountlock": [b"TRUE"]}, "disabled"),
        ({"accountexpires": [b"0"]}, ""),
        ({"accountexpires": [b"9223372036854775807"]}, ""),
        ({"accountexpires": [ticks(datetime(2026, 1, 1, tzinfo=UTC))]}, "expired"),
        ({"accountexpires": [ticks(datetime(2027, 1, 1, tzinfo=UTC))]}, ""),
        ({"shadowexpire": [b"-1"]}, ""),
        ({"shadowexpire": [b"100"]}, "expired"),
        ({"krbprincipalexpiration": [b"20250101000000Z"]}, "expired"),
        ({"pwdaccountlockedtime": [b"000001010000Z"]}, "locked"),
        ({"accountexpires": [b"no number"], "useraccountcontrol": [b"\xff"]}, ""),
        ({}, ""),
    ],
)
def test_accounts_that_are_not_in_use_are_told_apart(attributes, word):
    why = why_unusable(attributes, NOW)
    assert word in why
    assert bool(word) == bool(why)


def test_a_windows_id_is_the_uuid_that_administrators_see():
    guid = UUID("6f1f2e1c-7d3a-4a55-9a53-0f6a1b2c3d4e")
    assert id_of({"objectguid": [guid.bytes_le]}, "objectGUID") == str(guid)
    assert id_of({"objectguid": [b"short"]}, "objectGUID") == ""
    assert id_of({"entryuuid": [b"ABC"]}, "entryUUID") == "abc"


def test_the_primary_group_is_named_by_the_accounts_own_domain():
    sid = bytes([1, 5, 0, 0, 0, 0, 0, 5]) + b"".join(n.to_bytes(4, "little") for n in (21, 1, 2, 3, 1104))
    group = primary_group_sid({"objectsid": [sid], "primarygroupid": [b"513"]})
    assert group[:-4] == sid[:-4]
    assert int.from_bytes(group[-4:], "little") == 513
    assert primary_group_sid({"primarygroupid": [b"513"]}) == b""


@given(st.text(max_size=30))
def test_nothing_in_a_value_means_anything_in_a_filter(value):
    escaped = filters.escape(value)
    assert not set(escaped) & set("*()\x00")
    back = escaped
    for c in "*()\x00\\":
        back = back.replace(f"\\{ord(c):02x}", c)
    assert back == value


def test_only_people_are_asked_for_and_never_computers():
    wanted = filters.users(WINDOWS, "(department=it)", filters.login(WINDOWS, "a)(b"))
    assert wanted == (
        "(&(objectClass=user)(!(objectClass=computer))(department=it)(|(sAMAccountName=a\\29\\28b)(userPrincipalName=a\\29\\28b)))"
    )


# ── the walk ──

graphs = st.dictionaries(st.integers(0, 30), st.lists(st.integers(0, 30), max_size=4), max_size=31)


def found(n: int) -> FoundGroup:
    return FoundGroup(f"cn={n}", Group(str(n), f"g{n}"))


class Place:
    """A directory of groups: child → parents."""

    def __init__(self, parents: dict[int, list[int]]) -> None:
        self.parents = parents
        self.asked: list[tuple[str, ...]] = []

    def ask(self, dns):
        self.asked.append(tuple(dns))
        assert len(dns) <= BATCH
        return [found(p) for dn in dns for p in self.parents.get(int(dn[3:]), ())]


def closure(parents: dict[int, list[int]], start: list[int]) -> set[str]:
    seen: set[int] = set()
    todo = list(start)
    while todo:
        n = todo.pop()
        if n not in seen:
            seen.add(n)
            todo += parents.get(n, ())
    return {str(n) for n in seen}


@given(graphs, st.lists(st.integers(0, 30), max_size=3), st.lists(st.integers(0, 30), max_size=3))
def test_the_walk_finds_exactly_what_is_above_whatever_is_remembered(parents, one, two):
    place, cache = Place(parents), ParentCache(lambda: 0.0)
    for start in (one, two, one):
        walked = walk_up([found(n) for n in start], place.ask, cache, limit=100, is_late=lambda: False)
        assert set(walked.groups) == closure(parents, start)
        assert walked.why == ""


def test_groups_that_are_in_no_other_are_asked_about_once():
    place, cache = Place({}), ParentCache(lambda: 0.0)
    for start in ([1, 2], [2, 1, 3], [1], [3, 2]):
        walk_up([found(n) for n in start], place.ask, cache, limit=100, is_late=lambda: False)
    assert place.asked == [("cn=1", "cn=2"), ("cn=3",)]


def test_a_slow_or_dead_directory_and_a_deep_one_are_told():
    deep = Place({n: [n + 1] for n in range(200)})
    cache = ParentCache(lambda: 0.0)
    assert "slow" in walk_up([found(0)], deep.ask, cache, limit=100, is_late=lambda: True).why
    assert "nested deeper" in walk_up([found(0)], deep.ask, cache, limit=100, is_late=lambda: False).why

    def dead(_dns):
        raise errors.Unavailable("gone")

    assert "stopped answering" in walk_up([found(900)], dead, cache, limit=100, is_late=lambda: False).why
    many = walk_up(
        [found(n) for n in range(20)], Place({}).ask, ParentCache(lambda: 0.0), limit=7, is_late=lambda: False
    )
    assert len(many.groups) == 7
    assert "more than 7 groups" in many.why
