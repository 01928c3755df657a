from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from libs.common import errors
from libs.common.resources.identity import Token, User
from services.identity.strategies import TokenStrategy, UserStrategy
from services.identity.tokens import Lifetimes, Tokens
from tests.access import made
from tests.access.hub import ADMIN, running_hub
from tests.identity.recorder import Recorder, attempts_of

ADA, BOB, EVE = made.user("ada"), made.user("bob"), made.user("eve")


@asynccontextmanager
async def running(clock, *admins):
    async with running_hub(clock) as hub:
        await hub.put(ADA, BOB, EVE, ADMIN, *(made.binding(a, "admin", everywhere=True) for a in admins))
        tokens = Tokens(hub.stores["identity"], hub.now, Lifetimes())
        hub.trail = Recorder()
        attempts = attempts_of(hub, hub.trail)
        yield (
            hub,
            hub.writer(
                "identity", {"users": UserStrategy(hub.live, attempts), "tokens": TokenStrategy(tokens, attempts)}
            ),
        )


async def test_a_new_user_gets_a_principal_of_its_own_uid(clock):
    async with running(clock, ADA) as (hub, writer):
        new = User.model_validate({"metadata": {"name": "new"}, "status": {"principalId": f"local:user:{ADA.uid}"}})
        await hub.write(writer, ADA, "create", new)
        stored = await hub.get(User, "new")
        assert stored.status.principal_id == f"local:user:{stored.uid}"
        assert stored.uid != ADA.uid
        assert stored.private.password_hash == ""


@pytest.mark.parametrize("name", ["system:admin", "a.b", "UPPER", "with space", "x" * 64, "herdsman:ada", "-a"])
async def test_odd_names_are_refused(clock, name):
    async with running(clock, ADA) as (hub, writer):
        with pytest.raises(errors.Invalid):
            await hub.write(writer, ADA, "create", User.model_validate({"metadata": {"name": name}}))


async def test_the_last_enabled_admin_stays(clock):
    async with running(clock, ADA, BOB) as (hub, writer):
        await hub.write(writer, ADA, "patch", "bob", plural="users", body={"spec": {"enabled": False}})
        with pytest.raises(errors.Invalid, match="last enabled admin"):
            await hub.write(writer, ADA, "patch", "ada", plural="users", body={"spec": {"enabled": False}})
        with pytest.raises(errors.Invalid, match="last enabled admin"):
            await hub.write(writer, ADA, "delete", "ada", plural="users")
        await hub.write(writer, ADA, "patch", "bob", plural="users", body={"spec": {"enabled": True}})
        assert [(e.action, e.actor, e.account) for e in hub.trail.events] == [
            ("disable-user", "ada", "bob"),
            ("enable-user", "ada", "bob"),
        ]
        await hub.write(writer, BOB, "delete", "ada", plural="users")


async def test_the_status_is_the_hubs_alone(clock):
    async with running(clock, ADA) as (hub, writer):
        with pytest.raises(errors.Denied):
            await hub.write(
                writer, ADA, "patch", "bob", plural="users", subresource="status",
                body={"status": {"principalId": ADA.status.principal_id}},
            )  # fmt: skip
        assert (await hub.get(User, "bob")).status.principal_id == BOB.status.principal_id


async def test_a_stranger_writes_no_user(clock):
    async with running(clock, ADA) as (hub, writer):
        with pytest.raises(errors.Denied):
            await hub.write(writer, EVE, "patch", "eve", plural="users", body={"spec": {"displayName": "x"}})
        with pytest.raises(errors.Denied):
            await hub.write(writer, EVE, "create", User.model_validate({"metadata": {"name": "new"}}))


async def test_people_delete_their_own_tokens_and_nobody_elses(clock):
    def token(name, who):
        spec = {"user": who.name, "userUid": who.uid, "expiresAt": clock()}
        return Token.model_validate({"metadata": made.meta(name), "spec": spec})

    async with running(clock, ADA) as (hub, writer):
        await hub.put(token("eves", EVE), token("bobs", BOB))
        with pytest.raises((errors.Denied, errors.NotFound)):
            await hub.write(writer, EVE, "delete", "bobs", plural="tokens")
        assert await hub.get(Token, "bobs")
        await hub.write(writer, EVE, "delete", "eves", plural="tokens")
        await hub.write(writer, ADA, "delete", "bobs", plural="tokens")
        with pytest.raises(errors.MethodNotAllowed):
            await hub.write(writer, ADA, "create", token("forged", ADA))


async def test_a_token_that_is_deleted_leaves_its_record_with_all_that_was_made_with_it(clock):
    async with running(clock, ADA) as (hub, writer):
        tokens = Tokens(hub.stores["identity"], hub.now, Lifetimes())
        login = await tokens.issue(EVE, "login")
        child = await tokens.issue(EVE, "exec", parent=login.name)
        other = await tokens.issue(EVE, "api")
        await hub.settle()
        await hub.write(writer, EVE, "delete", login.name, plural="tokens", dry_run=True)
        assert len((await tokens.records.read(EVE.uid)).tokens) == 3
        await hub.write(writer, EVE, "delete", login.name, plural="tokens")
        assert (await tokens.records.read(EVE.uid)).tokens.keys() == {other.name}
        with pytest.raises(errors.NotFound):
            await hub.get(Token, child.name)
