from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from libs.common.access.lasting import find_lacking_of_user
from libs.common.access.local_groups import LocalGroups
from libs.common.resources.identity import Group
from tests.access import made
from tests.access.hub import ADMIN, running_hub

ADA, BOB = made.user("ada"), made.user("bob")


def group(name: str, *members: str, uid: str = "", **uids: str) -> Group:
    """`uids` for who was somebody else then."""
    return Group.model_validate(
        {
            "metadata": made.meta(name, uid),
            "spec": {"members": list(members)},
            "private": {"uids": {m: uids.get(m, f"uid-{m}") for m in members}},
        }
    )


def test_a_change_names_who_came_in_and_who_went_out():
    groups = LocalGroups()
    assert groups.put("ops", group("ops", "ada", "bob")) == {"ada", "bob"}
    assert groups.put("ops", group("ops", "bob", "eve")) == {"ada", "eve"}
    assert groups.put("ops", group("ops", "bob", "eve")) == set()
    assert groups.of("uid-ada") == ()
    assert groups.of("uid-eve") == ("local:group:uid-ops",)
    assert groups.put("ops", None) == {"bob", "eve"}
    assert (groups.by_uid, groups.ids) == ({}, frozenset())


def test_a_group_made_again_is_another_one_and_so_is_a_member():
    groups = LocalGroups()
    groups.put("ops", group("ops", "ada"))
    assert groups.put("ops", group("ops", "ada", uid="later")) == {"ada"}
    assert groups.of("uid-ada") == ("local:group:later",)
    assert groups.put("ops", group("ops", "ada", uid="later", ada="another")) == {"ada"}
    assert groups.of("uid-ada") == ()


def test_a_name_without_a_uid_is_no_member_and_a_group_that_goes_has_none():
    groups = LocalGroups()
    unfilled = Group.model_validate({"metadata": made.meta("ops"), "spec": {"members": ["ada"]}})
    assert groups.put("ops", unfilled) == set()
    assert groups.ids == {"local:group:uid-ops"}, "there is such a group, though nobody is in it"
    going = group("ops", "ada")
    groups.put("ops", going)
    going = going.model_copy(deep=True)
    going.metadata.deletion_timestamp = made.BEGIN
    assert groups.put("ops", going) == {"ada"}
    assert groups.ids == frozenset()


_names = st.sampled_from(["a", "b", "c"])
_change = st.tuples(_names, st.none() | st.lists(st.sampled_from(["u", "v", "w"]), unique=True))


@given(st.lists(_change, max_size=12))
def test_what_is_known_after_any_history_is_what_the_last_state_says(history):
    followed, last = LocalGroups(), {}
    for name, members in history:
        made_of = None if members is None else group(name, *members)
        snapshot, copy = followed.by_uid, dict(followed.by_uid)
        followed.put(name, made_of)
        assert snapshot == copy, "whoever has a snapshot keeps it"
        last[name] = made_of
    fresh = LocalGroups()
    for name, made_of in last.items():
        fresh.put(name, made_of)
    assert (followed.by_uid, followed.ids) == (fresh.by_uid, fresh.ids)


async def test_whoever_sets_a_password_must_cover_the_rights_of_the_persons_groups(clock):
    async with running_hub(clock) as hub:
        helper = made.role("helper", "global", hub=[made.hub_rule("get update", "users")])
        await hub.put(ADA, BOB, ADMIN, helper, made.binding(BOB, "helper", everywhere=True))

        def lacking():
            return find_lacking_of_user(hub.live.current, made.caller(BOB), "ada", hub.live.bindings, clock())

        assert lacking() == []
        await hub.put(group("ops", "ada"), made.binding("local:group:uid-ops", "admin", everywhere=True))
        assert lacking()
        await hub.put(group("ops"))
        assert lacking() == []
