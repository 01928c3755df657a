from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from libs.common import errors
from libs.common.reconcile import DONE
from libs.common.resources import codec
from libs.common.resources.identity import Group, User
from libs.common.resources.requests import AccessPolicy
from libs.common.store.informer import Change
from services.identity.group_members import GroupMembers, keys_of_member
from services.identity.group_strategy import GroupStrategy
from tests.access import made
from tests.access.hub import ADMIN, running_hub

ADA, BOB, EVE = made.user("ada"), made.user("bob"), made.user("eve")
KEEPER = made.role("keeper", "global", hub=[made.hub_rule("create get update patch delete", "groups")])
VIEWER = made.role("viewer", "cluster", rules=[made.rule("get", "pods")])


def new(name: str = "ops", *members: str) -> Group:
    return Group.model_validate({"metadata": {"name": name}, "spec": {"members": list(members)}})


@asynccontextmanager
async def running(clock):
    """Ada is admin everywhere, Bob keeps groups and nothing more, Eve has nothing."""
    async with running_hub(clock) as hub:
        await hub.put(
            ADA, BOB, EVE, ADMIN, KEEPER, VIEWER, made.cluster("east"), made.binding(ADA, "admin", everywhere=True),
            made.binding(ADA, "viewer", everywhere=True), made.binding(BOB, "keeper", everywhere=True),
        )  # fmt: skip
        strategy = GroupStrategy(hub.stores["identity"], hub.live.bindings, hub.objects(AccessPolicy))
        yield hub, hub.writer("identity", {"groups": strategy})


async def fill(hub, writer, who, *members: str, name: str = "ops"):
    return await hub.write(writer, who, "patch", name, plural="groups", body={"spec": {"members": list(members)}})


async def bind(hub, role: str, **more) -> None:
    group = await hub.get(Group, "ops")
    await hub.put(made.binding(group.status.principal_id, role, name=f"ops-{role}", **more))


async def test_a_group_has_a_principal_of_its_own_and_remembers_whom_it_means(clock):
    async with running(clock) as (hub, writer):
        reply = await hub.write(writer, BOB, "create", new("ops", "eve", "ada", "eve"))
        assert reply.document["spec"]["members"] == ["eve", "ada"]
        assert "private" not in reply.document
        stored = await hub.get(Group, "ops")
        assert stored.status.principal_id == f"local:group:{stored.uid}"
        assert stored.private.uids == {"eve": EVE.uid, "ada": ADA.uid}
        assert hub.live.current.local_groups == {EVE.uid: (stored.status.principal_id,), ADA.uid: (stored.status.principal_id,)}  # fmt: skip


async def test_a_member_has_to_exist(clock):
    async with running(clock) as (hub, writer):
        with pytest.raises(errors.Invalid, match=r'spec.members\[1\]: Not found: "nobody"'):
            await hub.write(writer, BOB, "create", new("ops", "eve", "nobody"))


async def test_a_user_who_was_made_a_moment_ago_is_found(clock):
    async with running(clock) as (hub, writer):
        late = made.user("late")
        # Past the informer, as on another replica.
        await hub.stores["identity"].create("users.late", codec.encode(late))
        await hub.write(writer, BOB, "create", new("ops", "late"))


async def test_nobody_lets_somebody_into_a_group_that_is_given_more_in_an_emergency(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, BOB, "create", new())
        await hub.put(emergency((await hub.get(Group, "ops")).status.principal_id))
        with pytest.raises(errors.Denied, match="get pods"):
            await fill(hub, writer, BOB, "bob")
        await fill(hub, writer, ADA, "bob")


def emergency(principal: str) -> AccessPolicy:
    spec = {
        "roles": ["viewer"], "scopes": [{"cluster": "east", "clusterUid": "uid-east"}], "requesters": [principal],
        "approvers": ["local:user:uid-ada"], "breakGlass": True,
    }  # fmt: skip
    return AccessPolicy.model_validate({"metadata": made.meta("glass"), "spec": spec})


async def test_nobody_lets_somebody_into_more_than_they_hold(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, BOB, "create", new("ops", "eve"))
        await bind(hub, "viewer", cluster="east")
        for members in (["eve", "bob"], ["bob"], ["ada", "eve"]):
            with pytest.raises(errors.Denied, match=r'cannot let anybody into the group "ops".*get pods'):
                await fill(hub, writer, BOB, *members)
        await fill(hub, writer, ADA, "eve", "bob")
        # What a member holds through the group, a member may give on, as with any role.
        group = await hub.get(Group, "ops")
        member = made.caller(BOB, group.status.principal_id)
        assert hub.live.current.synthetic_groups(member, "east", "uid-east")


async def test_taking_somebody_out_needs_no_rights_of_the_group(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", new("ops", "eve", "ada"))
        await bind(hub, "admin", everywhere=True)
        await fill(hub, writer, BOB, "eve")
        await hub.write(writer, BOB, "patch", "ops", plural="groups", body={"spec": {"description": "x"}})
        with pytest.raises(errors.Denied):
            await fill(hub, writer, BOB, "eve", "ada")


async def test_who_holds_a_role_for_an_hour_lets_nobody_into_a_group_that_has_it_for_good(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, BOB, "create", new())
        soon = hub.now() + timedelta(hours=1)
        await hub.put(made.binding(BOB, "viewer", cluster="east", until=soon))
        await bind(hub, "viewer", cluster="east")
        with pytest.raises(errors.Denied, match="hold for a shorter time"):
            await fill(hub, writer, BOB, "bob")
        await bind(hub, "viewer", cluster="east", until=soon)
        await fill(hub, writer, BOB, "bob")


async def test_a_later_user_of_the_same_name_is_no_member(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", new("ops", "eve", "bob"))
        await hub.delete(EVE)
        again = made.user("eve", "uid-another")
        await hub.put(again)
        assert hub.live.current.local_groups.get("uid-another") is None
        # Nor does writing the same list again let her in.
        await fill(hub, writer, ADA, "bob", "eve")
        assert hub.live.current.local_groups.get("uid-another") is None
        groups = hub.objects(Group)
        entry = hub.informers["users"].get("users.eve")
        assert list(keys_of_member(groups)(Change("users.eve", None, entry, entry))) == ["ops"]
        tidying = GroupMembers(hub.stores["identity"], groups, hub.objects(User), hub.now)
        assert await tidying.reconcile("ops") == DONE
        await hub.settle()
        assert (await hub.get(Group, "ops")).spec.members == ["bob"]
        await fill(hub, writer, ADA, "bob", "eve")
        assert hub.live.current.local_groups["uid-another"]


async def test_the_status_is_the_hubs_alone(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, BOB, "create", new())
        with pytest.raises(errors.Denied):
            await hub.write(
                writer, ADA, "patch", "ops", plural="groups", subresource="status", body={"status": {"principalId": "x"}}
            )  # fmt: skip


async def test_a_large_group_fits(clock):
    async with running(clock) as (hub, writer):
        names = [f"person-{number:04}" for number in range(5000)]
        for start in range(0, len(names), 1000):
            await hub.put(
                *(made.user(name, f"00000000-0000-0000-0000-{name[-4:]:0>12}") for name in names[start : start + 1000])
            )
        await hub.write(writer, ADA, "create", new("ops", *names))
        assert len(hub.live.current.local_groups) == 5000
