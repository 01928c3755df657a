"""What an issuer, or somebody in its place, may send: only its own word for us, now, for this sign-in, is believed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import pytest

from libs.common import errors
from libs.common.resources.providers import OidcSettings
from services.identity.providers import issuer as issuer_module
from services.identity.providers.base import Gone
from services.identity.providers.oidc import OidcProvider
from services.identity.providers.web import MAX_BYTES
from tests.identity.oidc.issuer import CLIENT, KEY, OTHER, lying, shared_secret, unsigned

BACK = "https://hub.example/v1/callback/sso"


@asynccontextmanager
async def running(clock, **settings):
    async with lying(clock()) as liar:
        provider = OidcProvider(
            "sso",
            OidcSettings(
                issuer=liar.url, client_id=CLIENT, client_secret="s3cret", **{"timeout_seconds": 2, **settings}
            ),
            clock,
        )
        try:
            yield liar, provider
        finally:
            await provider.aclose()


async def sign_in(liar, provider, **parameters):
    begun = await provider.begin(BACK, "state")
    liar.nonce = begun.secrets["nonce"]
    return await provider.finish(BACK, {"code": "c", "state": "state", **parameters}, begun.secrets)


async def test_the_browser_is_sent_with_challenge_nonce_and_state(clock):
    async with running(clock) as (liar, provider):
        begun = await provider.begin(BACK, "the-state")
        asked = {name: values[0] for name, values in parse_qs(urlsplit(begun.url).query).items()}
        assert (asked["state"], asked["nonce"], asked["redirect_uri"]) == ("the-state", begun.secrets["nonce"], BACK)
        assert asked["code_challenge_method"] == "S256"
        assert begun.secrets["verifier"] not in begun.url
        assert asked["scope"].split()[0] == "openid"
        await sign_in(liar, provider)
        assert liar.forms[-1]["code_verifier"]
        assert liar.authorizations[-1].startswith("Basic ")
        assert "client_secret" not in liar.forms[-1]


async def test_the_account_is_the_subject_whatever_it_is_called(clock):
    async with running(clock) as (liar, provider):
        identity = await sign_in(liar, provider)
        assert (identity.id, identity.user_name, [g.id for g in identity.groups]) == ("sub-1", "jane", ["ops"])
        assert identity.refresh_secret == "rt-2"


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "another-client"},
        {"aud": [CLIENT, "another-client"]},
        {"aud": [CLIENT, "another-client"], "azp": "another-client"},
        {"azp": "another-client"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"sub": None},
        {"sub": ""},
        {"nonce": "another"},
        {"nonce": None},
        {"aud": None},
        {"nbf": 99999999999},
    ],
)
async def test_a_token_that_is_not_for_us_now_is_refused(clock, change):
    async with running(clock) as (liar, provider):
        liar.change = change
        with pytest.raises(errors.Unauthenticated, match="could not be verified"):
            await sign_in(liar, provider)


async def test_several_audiences_are_fine_where_we_are_the_authorized_one(clock):
    async with running(clock) as (liar, provider):
        liar.change = {"aud": [CLIENT, "another-client"], "azp": CLIENT}
        assert await sign_in(liar, provider)


async def test_a_clock_that_is_a_little_off_is_no_reason(clock):
    async with running(clock) as (liar, provider):
        moment = int(clock().timestamp())
        liar.change = {"exp": moment - 30, "iat": moment + 30, "nbf": moment + 30}
        assert await sign_in(liar, provider)


@pytest.mark.parametrize(
    "forgery", ["none", "shared secret", "public key as secret", "unknown key", "key of another", "garbage", ""]
)
async def test_a_forged_signature_is_refused(clock, forgery):
    async with running(clock) as (liar, provider):
        await sign_in(liar, provider)
        match forgery:
            case "none":
                liar.raw_token = unsigned(
                    {"iss": liar.url, "aud": CLIENT, "sub": "sub-1", "exp": 99999999999, "iat": 1}
                )
            case "shared secret":
                liar.signed_by, liar.algorithm = shared_secret("s3cret-of-the-client-that-is-known-to-both"), "HS256"
            case "public key as secret":
                liar.signed_by, liar.algorithm = shared_secret(KEY.as_pem(private=False).decode()[:200]), "HS256"
            case "unknown key":
                liar.signed_by, liar.kid = OTHER, "two"
            case "key of another":
                liar.signed_by = OTHER
            case "garbage":
                liar.raw_token = "a.b.c"
            case _:
                liar.raw_token = ""
        with pytest.raises(errors.Unauthenticated):
            await sign_in(liar, provider)


async def test_new_keys_are_found_and_are_not_asked_for_all_the_time(clock, monkeypatch):
    async with running(clock) as (liar, provider):
        await sign_in(liar, provider)
        assert liar.fetched_keys == 1
        liar.keys, liar.signed_by, liar.kid = [OTHER], OTHER, "two"
        for _ in range(3):
            with pytest.raises(errors.Unauthenticated):
                await sign_in(liar, provider)
        assert liar.fetched_keys == 1
        monkeypatch.setattr(issuer_module, "KEYS_AGAIN_S", 0.0)
        assert await sign_in(liar, provider)
        assert liar.fetched_keys == 2


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"issuer": "https://evil.example"}, "another issuer"),
        ({"token_endpoint": "http://evil.example/token"}, "token_endpoint is not https"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri is not https"),
        ({"authorization_endpoint": ""}, "no authorization_endpoint"),
    ],
)
async def test_metadata_that_leads_elsewhere_is_refused(clock, metadata, says):
    async with running(clock) as (liar, provider):
        liar.metadata = metadata
        with pytest.raises(errors.Invalid, match=says):
            await provider.test()


async def test_a_slow_or_endless_issuer_is_unavailable(clock):
    async with running(clock, timeout_seconds=1) as (liar, provider):
        liar.delay_s = 3
        with pytest.raises(errors.Unavailable, match="did not answer within 1 s"):
            await provider.test()
        liar.delay_s, liar.padding = 0, MAX_BYTES
        with pytest.raises(errors.Unavailable, match="larger than"):
            await provider.test()


async def test_groups_that_are_only_in_userinfo_are_fetched_and_another_persons_userinfo_is_not_believed(clock):
    async with running(clock) as (liar, provider):
        liar.change = {"groups": None}
        liar.userinfo = {"sub": "sub-1", "groups": ["from-userinfo"], "name": "Jane Doe"}
        identity = await sign_in(liar, provider)
        assert ([g.id for g in identity.groups], identity.display_name) == (["from-userinfo"], "Jane Doe")
        liar.userinfo = {"sub": "somebody-else", "groups": ["admins"]}
        assert (await sign_in(liar, provider)).groups == ()


@pytest.mark.parametrize("claims", [{"hasgroups": True}, {"_claim_names": {"groups": "src1"}}])
async def test_groups_that_were_left_out_are_told(clock, claims):
    async with running(clock) as (liar, provider):
        liar.change = {"groups": None, **claims}
        liar.userinfo = {"sub": "sub-1"}
        assert "too many" in (await sign_in(liar, provider)).truncated


async def test_who_cancels_at_the_provider_is_told_so_and_an_odd_error_tells_nothing(clock):
    async with running(clock) as (liar, provider):
        with pytest.raises(errors.Denied, match="did not sign in"):
            await sign_in(liar, provider, error="access_denied")
        with pytest.raises(errors.Unauthenticated) as caught:
            await sign_in(liar, provider, error="<script>", error_description="internal host db-7")
        assert "db-7" not in caught.value.message


async def test_answers_of_another_issuer_are_refused(clock):
    async with running(clock) as (liar, provider):
        with pytest.raises(errors.Unauthenticated):
            await sign_in(liar, provider, iss="https://evil.example")
        assert await sign_in(liar, provider, iss=liar.url)
    async with running(clock) as (liar, provider):
        liar.metadata = {"authorization_response_iss_parameter_supported": True}
        with pytest.raises(errors.Unauthenticated):
            await sign_in(liar, provider)


async def test_a_refresh_that_the_provider_refuses_ends_the_account_and_an_outage_does_not(clock):
    async with running(clock) as (liar, provider):
        await sign_in(liar, provider)
        liar.change = {"nonce": None}
        assert (await provider.refresh("sub-1", "rt")).id == "sub-1"
        with pytest.raises(Gone):
            await provider.refresh("somebody-else", "rt")
        liar.refusal = (400, {"error": "invalid_grant"})
        with pytest.raises(Gone):
            await provider.refresh("sub-1", "rt")
        for refusal in ((503, {}), (429, {}), (401, {"error": "invalid_client"})):
            liar.refusal = refusal
            with pytest.raises(errors.Unavailable):
                await provider.refresh("sub-1", "rt")
        with pytest.raises(errors.Unauthenticated):
            await provider.refresh("sub-1", "")


async def test_the_account_is_the_object_id_where_that_is_set_and_nothing_stands_in_for_it(clock):
    async with running(clock, account_id_claim="oid") as (liar, provider):
        liar.change = {"oid": "object-1"}
        assert (await sign_in(liar, provider)).id == "object-1"
        liar.nonce = None
        assert (await provider.refresh("object-1", "rt")).id == "object-1"
        with pytest.raises(Gone):
            await provider.refresh("sub-1", "rt")
        for oid in (None, "", 7):
            liar.change = {"oid": oid}
            with pytest.raises(errors.Unavailable, match="which account"):
                await sign_in(liar, provider)
