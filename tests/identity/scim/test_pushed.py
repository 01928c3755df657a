from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from libs.common import errors
from libs.common.access.membership import may_use, membership_of
from libs.common.contracts.messages import ScimCall
from libs.common.resources.identity import User
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.providers import IdentityProvider, IdentityProviderSpec
from libs.common.store.informer import Informer
from libs.common.store.objects import Objects
from services.identity.accounts import Accounts
from services.identity.providers.base import Group, Identity
from services.identity.providers.factories import FACTORIES
from services.identity.providers.running import Providers
from services.identity.scim.directory import GROUPS, Directory
from services.identity.scim.groups import Groups
from services.identity.scim.service import Scim
from services.identity.scim.users import Users
from services.identity.tokens import Lifetimes, Tokens
from tests.access import made
from tests.access.hub import ADMIN, Hub, end, running_hub
from tests.identity.recorder import Recorder, attempts_of
from tests.identity.service import MESSAGE
from tests.identity.test_accounts import RING
from tests.identity.test_accounts import provider as directory_provider

PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PUSHER = made.role("pusher", "global", hub=[made.hub_rule("provision", "identityproviders", "sso", "corp", "quiet")])
BOT = made.user("bot").model_copy(update={"spec": made.user("bot").spec.model_copy(update={"service": True})})
ADA = made.user("ada")


def oidc(name: str = "sso", *, scim: bool = True, **spec: object) -> IdentityProvider:
    settings = {"issuer": "https://sso.example", "clientId": "hub", "scim": scim}
    return IdentityProvider(
        metadata=ObjectMeta(name=name, uid=f"uid-{name}", generation=1),
        spec=IdentityProviderSpec.model_validate({"type": "oidc", "enabled": True, "oidc": settings, **spec}),
    )


@dataclass
class Site:
    hub: Hub
    trail: Recorder
    scim: Scim
    accounts: Accounts
    tokens: Tokens
    who: User = field(default_factory=lambda: BOT)

    async def ask(self, operation: str, kind: str = "Users", resource_id: str = "", body: Any = None, **more: Any):
        request = ScimCall(
            identity=self.hub.envelope(self.who), provider=more.pop("provider", "sso"), operation=operation, kind=kind, id=resource_id,
            body=body, query=more, base_url="https://hub.example",
        )  # fmt: skip
        reply = await self.scim.call(request, MESSAGE)
        await self.hub.settle()
        return reply.status, reply.document or {}

    async def push(self, account_id: str = "42", **more: Any) -> dict[str, Any]:
        status, document = await self.ask("create", body=person(account_id, **more))
        assert status == 201, document
        return document

    async def group(self, name: str, *members: str, **more: Any) -> dict[str, Any]:
        body = {"schemas": [GROUP], "displayName": name, "members": [{"value": uid} for uid in members], **more}
        status, document = await self.ask("create", "Groups", body=body)
        assert status == 201, document
        return document

    async def patch(self, kind: str, resource_id: str, *operations: dict[str, Any]):
        return await self.ask("patch", kind, resource_id, {"schemas": [PATCH], "Operations": list(operations)})

    async def user(self, name: str = "jane") -> User:
        return await self.hub.get(User, name)

    async def sign_in(self, account_id: str = "42", *groups: str, name: str = "jane@example.org") -> User:
        identity = Identity(account_id, name, groups=tuple(Group(g, g) for g in groups), refresh_secret="r")
        return await self.accounts.sign_in(oidc(), identity)

    async def groups_of(self, name: str = "jane") -> set[str]:
        membership = membership_of(await self.user(name), lambda _: oidc(), self.hub.now())
        return {i for i in membership.group_ids if ":group:" in i}


def person(account_id: str = "42", **more: Any) -> dict[str, Any]:
    return {"schemas": [USER], "userName": "jane@example.org", "externalId": account_id, "displayName": "Jane", **more}


@asynccontextmanager
async def running(clock):
    async with running_hub(clock) as hub:
        await hub.put(ADMIN, PUSHER, BOT, ADA, oidc(), oidc("quiet", scim=False), directory_provider())
        await hub.put(made.binding(BOT, "pusher", everywhere=True), made.binding(ADA, "admin", everywhere=True))
        store = hub.stores["identity"]
        records = Informer(store, GROUPS)
        following = asyncio.get_running_loop().create_task(records.run(), name="informer groups")
        await records.synced.wait()
        accounts = Accounts(store, RING, clock)
        tokens = Tokens(store, clock, Lifetimes())
        pushed = Directory(hub.informers["users"], records)
        trail = Recorder()
        users = Users(
            store, accounts, tokens, Objects(hub.informers["users"], User), pushed, clock, attempts_of(hub, trail)
        )
        providers = Providers(hub.objects(IdentityProvider), FACTORIES, RING)
        scim = Scim(store, providers, hub.verifier, hub.live, users, Groups(store, users, pushed, clock))
        try:
            yield Site(hub, trail, scim, accounts, tokens)
        finally:
            await end([following])


async def test_a_pushed_user_is_the_one_who_signs_in_later(clock):
    async with running(clock) as site:
        pushed = await site.push(emails=[{"value": "jane@example.org", "primary": True}])
        before = await site.user()
        assert (before.uid, before.spec.display_name) == (pushed["id"], "Jane")
        assert before.status.identities[0].email == "jane@example.org"
        assert (await site.sign_in()).uid == pushed["id"]


async def test_who_signed_in_before_is_found_by_the_account_and_keeps_what_the_user_is(clock):
    async with running(clock) as site:
        before = await site.sign_in("42", "claimed")
        pushed = await site.push(displayName="Somebody")
        after = await site.user()
        assert pushed["id"] == before.uid == after.uid
        assert after.spec == before.spec
        assert await site.groups_of() == set()


async def test_a_name_that_somebody_has_leads_to_nobody_else(clock):
    async with running(clock) as site:
        await site.hub.put(made.user("jane"))
        local = await site.user()
        corp = await site.accounts.sign_in(directory_provider(), Identity("7", "jane@example.org"))
        pushed = await site.push()
        assert pushed["id"] not in (local.uid, corp.uid)
        assert (await site.user()).status.identities == []
        assert (await site.user(corp.name)).private.pushed == {}


@pytest.mark.parametrize("other", [{"userName": "JANE@example.org", "externalId": "43"}, {"userName": "other"}])
async def test_the_same_name_or_account_twice_is_a_conflict(clock, other):
    async with running(clock) as site:
        await site.push()
        status, document = await site.ask(
            "create", body=person(**other) if "externalId" not in other else {**person(), **other}
        )
        assert (status, document["scimType"]) == (409, "uniqueness")


async def test_pushes_at_once_make_one_user(clock):
    async with running(clock) as site:
        answers = await asyncio.gather(*(site.ask("create", body=person()) for _ in range(5)))
        assert sorted(status for status, _ in answers) == [201, 409, 409, 409, 409]


async def test_a_name_is_free_again_when_its_user_has_another_or_is_deleted(clock):
    async with running(clock) as site:
        one = await site.push()
        two = await site.push("43", userName="john")
        rename = {"op": "replace", "path": "userName", "value": "john"}
        assert (await site.patch("Users", one["id"], rename))[0] == 409
        assert (await site.patch("Users", two["id"], {**rename, "value": "johnny"}))[0] == 200
        assert (await site.patch("Users", one["id"], rename))[0] == 200
        assert (await site.ask("delete", resource_id=two["id"]))[0] == 204
        await site.push("44", userName="johnny")


async def test_deactivation_ends_what_came_from_there_and_no_sign_in_takes_it_back(clock):
    async with running(clock) as site:
        pushed = await site.push()
        await site.group("ops", pushed["id"])
        user = await site.sign_in()
        assert user.private.sealed
        theirs = await site.tokens.issue(user, "login", provider="sso")
        elsewhere = await site.tokens.issue(user, "login", provider="local")
        await site.hub.settle()
        off = {"op": "Replace", "path": "active", "value": "False"}
        assert (await site.patch("Users", pushed["id"], off))[0] == 200
        assert not may_use("sso", await site.user(), lambda _: oidc(), clock())
        assert await site.groups_of() == set()
        assert not await site.tokens.revoke(theirs.name)
        assert await site.tokens.revoke(elsewhere.name)
        gone = site.trail.events[-1]
        assert (gone.action, gone.reason, gone.provider, gone.actor) == ("deactivate-account", "scim", "sso", BOT.name)
        with pytest.raises(errors.Denied, match="deactivated there"):
            await site.sign_in()
        seen = await site.accounts.note(await site.user(), oidc(), Identity("42", "jane", groups=(Group("x", "x"),)))
        assert seen.status.identities[0].gone
        # Who is asked for in the list is still there, in the same groups.
        shown = (await site.ask("read", resource_id=pushed["id"]))[1]
        assert (shown["active"], [g["display"] for g in shown["groups"]]) == (False, ["ops"])
        assert (await site.patch("Users", pushed["id"], {**off, "value": "True"}))[0] == 200
        await site.sign_in()
        assert await site.groups_of() == {"sso:group:ops"}


async def test_what_was_pushed_counts_and_not_the_claim_until_scim_is_off(clock):
    async with running(clock) as site:
        pushed = await site.push()
        group = await site.group("ops", pushed["id"])
        await site.sign_in("42", "claimed")
        assert await site.groups_of() == {"sso:group:ops"}
        await site.accounts.mark_gone(await site.user(), "sso:user:42", "its sign-in ended")
        assert await site.groups_of() == set()
        # Named again without a word on the account: it stays gone until the person signs in.
        await site.patch("Users", pushed["id"], {"op": "replace", "path": "displayName", "value": "J"})
        out_and_in = [
            {"op": "remove", "path": "members"},
            {"op": "add", "path": "members", "value": [{"value": pushed["id"]}]},
        ]
        await site.patch("Groups", group["id"], *out_and_in)
        assert await site.groups_of() == set()
        await site.sign_in("42", "claimed")
        assert await site.groups_of() == {"sso:group:ops"}
        await site.accounts.sign_in(oidc(scim=False), Identity("42", "jane", groups=(Group("claimed", "c"),)))
        assert await site.groups_of() == {"sso:group:claimed"}


async def test_allowed_principals_are_asked_of_the_pushed_groups(clock):
    async with running(clock) as site:
        pushed = await site.push()
        chosen = oidc(allowedPrincipals=["sso:group:ops"])
        identity = Identity("42", "jane", groups=(Group("ops", "ops"),))
        with pytest.raises(errors.Denied, match="not among those"):
            await site.accounts.sign_in(chosen, identity)
        await site.group("ops", pushed["id"])
        await site.accounts.sign_in(chosen, Identity("42", "jane"))


async def test_a_deleted_user_is_unlinked_and_comes_back_as_somebody_else(clock):
    async with running(clock) as site:
        pushed = await site.push()
        group = await site.group("ops", pushed["id"])
        assert (await site.ask("delete", resource_id=pushed["id"]))[0] == 204
        assert (await site.ask("delete", resource_id=pushed["id"]))[0] == 404
        left = await site.user()
        assert (left.status.identities, left.private.pushed) == ([], {})
        assert "members" not in (await site.ask("read", "Groups", group["id"]))[1]
        assert (await site.push())["id"] != pushed["id"]


async def test_a_renamed_group_takes_its_members_along(clock):
    async with running(clock) as site:
        pushed = await site.push()
        group = await site.group("ops", pushed["id"])
        await site.group("staff")
        rename = {"op": "replace", "value": {"id": group["id"], "displayName": "operators"}}
        assert (await site.patch("Groups", group["id"], rename))[0] == 204
        assert await site.groups_of() == {"sso:group:operators"}
        status, document = await site.patch(
            "Groups", group["id"], {"op": "replace", "path": "displayName", "value": "staff"}
        )
        assert (status, document["scimType"]) == (409, "uniqueness")
        assert await site.groups_of() == {"sso:group:operators"}
        body = {"schemas": [GROUP], "displayName": "operators", "members": []}
        assert (await site.ask("replace", "Groups", group["id"], body))[0] == 200
        assert await site.groups_of() == set()
        await site.group("ops", pushed["id"])


async def test_a_deleted_group_gives_nothing_any_more(clock):
    async with running(clock) as site:
        pushed = await site.push()
        group = await site.group("ops", pushed["id"])
        assert await site.groups_of() == {"sso:group:ops"}
        assert (await site.ask("delete", "Groups", group["id"]))[0] == 204
        assert await site.groups_of() == set()
        assert (await site.ask("read", "Groups", group["id"]))[0] == 404


async def test_members_are_those_who_were_pushed(clock):
    async with running(clock) as site:
        body = {"schemas": [GROUP], "displayName": "ops", "members": [{"value": ADA.uid}]}
        status, document = await site.ask("create", "Groups", body=body)
        assert (status, document["scimType"]) == (400, "invalidValue")
        assert (await site.ask("list", "Groups"))[1]["totalResults"] == 0


async def test_nobody_is_reached_who_was_not_pushed_by_this_provider(clock):
    async with running(clock) as site:
        for operation, body in (("read", None), ("replace", person()), ("delete", None)):
            assert (await site.ask(operation, resource_id=ADA.uid, body=body))[0] == 404
        assert (await site.patch("Users", ADA.uid, {"op": "replace", "path": "active", "value": False}))[0] == 404


async def test_a_replaced_user_keeps_the_account_and_the_groups(clock):
    async with running(clock) as site:
        pushed = await site.push()
        await site.group("ops", pushed["id"])
        body = {"schemas": [USER], "userName": "jane.doe", "active": True, "groups": [], "id": pushed["id"]}
        status, document = await site.ask("replace", resource_id=pushed["id"], body=body)
        assert (status, document["externalId"], document["userName"]) == (200, "42", "jane.doe")
        assert await site.groups_of() == {"sso:group:ops"}
        status, document = await site.ask("replace", resource_id=pushed["id"], body={**body, "externalId": "43"})
        assert (status, document["scimType"]) == (400, "mutability")


async def test_lists_are_cut_into_pages_and_filtered(clock):
    async with running(clock) as site:
        for number in range(5):
            await site.push(f"id-{number}", userName=f"user-{number}")
        _, page = await site.ask("list", startIndex="2", count="2", attributes="userName")
        assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (5, 2, 2)
        assert [set(u) for u in page["Resources"]] == [{"schemas", "id", "userName"}] * 2
        for text, found in (
            ('userName eq "USER-3"', 1),
            ('externalId eq "id-3"', 1),
            ('externalId eq "ID-3"', 0),
            ('userName eq "x"', 0),
        ):
            assert (await site.ask("list", filter=text))[1]["totalResults"] == found
        status, document = await site.ask("list", filter='userName sw "u"')
        assert (status, document["scimType"]) == (400, "invalidFilter")


async def test_who_may_push_and_where(clock):
    async with running(clock) as site:
        with pytest.raises(errors.BadRequest, match='"corp" is of type ldap'):
            await site.ask("list", provider="corp")
        with pytest.raises(errors.Denied, match=r"spec\.oidc\.scim"):
            await site.ask("list", provider="quiet")
        with pytest.raises(errors.Denied, match="right to provision"):
            await site.ask("list", provider="other")
        with pytest.raises(errors.Denied, match="service user"):
            await Site(site.hub, site.trail, site.scim, site.accounts, site.tokens, ADA).ask("list")
