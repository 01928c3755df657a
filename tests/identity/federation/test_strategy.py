"""Who writes a credential lets others be its user: that takes what issuing tokens for that user takes, at every write."""

from __future__ import annotations

import json

import pytest
from joserfc.jwk import RSAKey

from libs.common import errors
from libs.common.resources.federation import FederatedCredential
from tests.access import made
from tests.identity.federation.site import ADA, BOB, EVE, bot, running
from tests.identity.oidc.issuer import KEY, shared_secret
from tests.identity.test_groups import emergency

PLURAL = "federatedcredentials"


async def create(site, who=BOB, **spec):
    wanted = site.credential(**{"userUid": "", **spec})
    wanted.metadata = made.meta("shop").model_copy(update={"uid": None})
    return await site.hub.write(site.writer, who, "create", wanted)


async def patch(site, who=BOB, **spec):
    return await site.hub.write(site.writer, who, "patch", "shop", plural=PLURAL, body={"spec": spec})


async def test_whoever_may_issue_its_tokens_writes_a_credential_for_a_service_user(clock):
    async with running(clock) as site:
        reply = await create(site)
        assert reply.warnings == []
        assert reply.document["spec"]["userUid"] == "uid-bot"
        assert site.liar.fetched_keys == 1
        await patch(site, description="of team shop")
        assert site.liar.fetched_keys == 1
        assert (await site.exchange()).issued


async def test_the_right_to_write_credentials_is_not_enough(clock):
    writes = made.role("writes", "global", hub=[made.hub_rule("create update patch", PLURAL)])
    async with running(clock) as site:
        await site.hub.put(writes, made.binding(EVE, "writes", everywhere=True))
        with pytest.raises(errors.Denied, match="right to update user"):
            await create(site, EVE)
        await create(site)
        with pytest.raises(errors.Denied, match="right to update user"):
            await patch(site, EVE, subject="repo:evil/x:ref:refs/heads/main")


async def test_a_user_with_more_rights_than_the_writer_is_out_of_reach_later_too(clock):
    async with running(clock) as site:
        strong = bot("strong")
        await site.hub.put(strong, made.binding(strong, "admin", everywhere=True))
        with pytest.raises(errors.Denied, match="rights that you lack"):
            await create(site, user="strong")
        await create(site)
        await site.hub.put(made.binding(bot(), "admin", everywhere=True))
        with pytest.raises(errors.Denied, match="rights that you lack"):
            await patch(site, subject="repo:evil/x:ref:refs/heads/main")
        await site.hub.put(made.binding(ADA, "admin", everywhere=True))
        await patch(site, ADA, subject="repo:acme/cart:ref:refs/heads/main")


async def test_a_user_who_may_be_given_more_in_an_emergency_is_out_of_reach(clock):
    async with running(clock) as site:
        await create(site)
        await site.hub.put(made.cluster("east"), made.role("viewer", "cluster", rules=[made.rule("get", "pods")]))
        await site.hub.put(emergency("local:user:uid-bot"))
        with pytest.raises(errors.Denied, match="get pods"):
            await patch(site, subject="repo:evil/x:ref:refs/heads/main")


async def test_a_person_or_nobody_is_no_user_for_workloads_and_the_user_cannot_change(clock):
    async with running(clock) as site:
        with pytest.raises(errors.Invalid, match="is a person"):
            await create(site, user="eve")
        with pytest.raises(errors.Invalid, match="no such user"):
            await create(site, user="nobody")
        with pytest.raises(errors.Invalid, match="another user of the same name"):
            await create(site, userUid="uid-other")
        await create(site)
        await site.hub.put(bot("other"))
        for change in ({"user": "other"}, {"userUid": "uid-other"}):
            with pytest.raises(errors.Invalid, match="cannot change"):
                await patch(site, **change)
        await site.hub.put(bot(uid="uid-again"))
        with pytest.raises(errors.Invalid, match="another user of the same name"):
            await patch(site, description="x")


async def test_keys_and_authorities_are_read_when_they_are_written(clock):
    private = RSAKey.generate_key(2048, {"kid": "p"}, private=True).as_dict(private=True)
    shared = shared_secret("a secret that is long enough to be one").as_dict(private=True)
    public = KEY.as_dict(private=False)
    async with running(clock) as site:
        for jwks, says in (
            ("x", "no JWK set"), ("[]", "no JWK set"), ('{"keys": []}', "1 to 50 keys"), (json.dumps({"keys": [private]}), "private or shared key"),
            (json.dumps({"keys": [public, shared]}), "private or shared key"), (json.dumps({"keys": [{"kty": "RSA"}]}), "no key can be read"),
        ):  # fmt: skip
            with pytest.raises(errors.Invalid, match=says):
                await create(site, jwks=jwks)
        with pytest.raises(errors.Invalid, match="no PEM"):
            await create(site, ca="no certificate")
        await create(site, jwks=json.dumps({"keys": [public]}))
        assert site.liar.fetched_keys == 0


async def test_an_issuer_that_cannot_be_asked_now_is_a_warning(clock):
    async with running(clock) as site:
        site.liar.metadata = {"jwks_uri": "http://elsewhere.example/keys"}
        (warning,) = (await create(site)).warnings
        assert "jwks_uri is not https" in warning


async def test_a_subject_for_everybody_at_a_shared_issuer_is_refused(clock):
    async with running(clock) as site:
        jwks = json.dumps({"keys": [KEY.as_dict(private=False)]})
        with pytest.raises(errors.Invalid, match="everybody can have tokens of this issuer"):
            await create(site, issuer="https://token.actions.githubusercontent.com", subject="repo:*", jwks=jwks)


async def test_the_status_is_the_hubs_alone(clock):
    async with running(clock) as site:
        await create(site)
        with pytest.raises(errors.Denied):
            await site.hub.write(
                site.writer, BOB, "patch", "shop", plural=PLURAL, subresource="status", body={"status": {"x": 1}}
            )
        assert isinstance(await site.hub.get(FederatedCredential, "shop"), FederatedCredential)
