"""OpenID Connect Back-Channel Logout 1.0: only this issuer's word, for us, now and once, ends anything; and it ends what it says, no less and no more."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import pytest

from libs.common import errors
from libs.common.contracts import messages as m
from libs.common.resources.identity import Token, User
from services.identity.foreign_token import MAX_BYTES, MAX_TEXT, Refused
from services.identity.providers import oidc as oidc_module
from services.identity.providers.logout_token import MAX_AGE_S, check_claims, check_type
from tests.identity.oidc.issuer import CLIENT, EVENT, KEY, OTHER, shared_secret, unsigned
from tests.identity.oidc.site import oidc, site_of
from tests.identity.service import MESSAGE

NOW = 1767323045
"""What the tests' clock says."""


async def test_who_was_signed_out_at_the_provider_is_signed_out_here(clock):
    async with site_of(clock) as site:
        issued = await site.sign_in(sid="s-1")
        assert await site.told(site.liar.logout_token()) == ""
        assert not await site.left()
        with pytest.raises(errors.NotFound):
            await site.hub.get(Token, issued.name)
        assert site.trail.told == [("sign-out-by-provider", "success", "account", issued.user)]
        assert await site.told(site.liar.logout_token(aud="another-client")) == "invalid_request"
        assert site.trail.told[1:] == [("sign-out-by-provider", "failure", "refused", "")]


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": [CLIENT, "another-client"]},
        {"aud": [CLIENT], "azp": "another-client"},
        {"aud": None},
        {"aud": {CLIENT: True}},
        {"exp": NOW - 61},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"iat": NOW + 61},
        {"iat": NOW - MAX_AGE_S - 61, "exp": NOW + 10**6},
        {"iat": None},
        {"nbf": NOW + 61},
        {"events": None},
        {"events": {}},
        {"events": {EVENT: True}},
        {"events": [EVENT]},
        {"events": EVENT},
        {"events": {"http://schemas.openid.net/event/another": {}}},
        {"nonce": "n"},
        {"nonce": ""},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "sub-1", "sid": ""},
        {"sid": ["s-1"]},
        {"sid": "x" * (MAX_TEXT + 1)},
        {"jti": None},
        {"jti": ""},
        {"typ": "at+jwt"},
        {"typ": "dpop+jwt"},
    ],
    ids=str,
)
async def test_a_token_that_is_no_word_of_this_issuer_for_us_now_ends_nothing(clock, change):
    assert clock().timestamp() == NOW
    async with site_of(clock) as site:
        issued = await site.sign_in(sid="s-1")
        assert await site.told(site.liar.logout_token(**change)) == "invalid_request"
        assert await site.left() == {issued.name}


@pytest.mark.parametrize("change", [{}, {"iss": "https://sso.example/"}, {"sub": None}, {"aud": "another"}], ids=str)
def test_what_is_checked_before_anybody_is_asked_is_checked_again_after(change):
    claims = {
        "iss": "https://sso.example", "aud": CLIENT, "sub": "s", "iat": NOW, "exp": NOW + 60, "jti": "j", "events": {EVENT: {}},
        **change,
    }  # fmt: skip
    claims = {name: value for name, value in claims.items() if value is not None}
    with pytest.raises(Refused) if change else nullcontext():
        check_claims(claims, "https://sso.example", CLIENT, NOW, 60)
    with pytest.raises(Refused):
        check_type({"typ": "at+jwt"})


@pytest.mark.parametrize(
    "change",
    [
        {"exp": NOW - 59},
        {"iat": NOW + 59},
        {"typ": None},
        {"typ": "JWT"},
        {"typ": "application/logout+jwt"},
        {"typ": "LOGOUT+JWT"},
        {"aud": [CLIENT]},
        {"aud": [CLIENT, "another-client"], "azp": CLIENT},
        {"events": {EVENT: {"more": 1}, "http://schemas.openid.net/event/another": {}}},
    ],
    ids=str,
)
async def test_what_the_standard_leaves_open_is_no_reason(clock, change):
    async with site_of(clock) as site:
        await site.sign_in()
        assert await site.told(site.liar.logout_token(**change)) == ""
        assert not await site.left()


async def test_an_id_token_is_no_logout_token_whatever_it_is_called(clock):
    async with site_of(clock) as site:
        issued = await site.sign_in(sid="s-1")
        site.liar.change = {"sid": "s-1", "jti": "j"}
        assert await site.told(site.liar.id_token()) == "invalid_request"
        # One without a nonce, as a refresh gives.
        site.liar.change = {"sid": "s-1", "jti": "j", "nonce": None}
        assert await site.told(site.liar.id_token()) == "invalid_request"
        assert await site.left() == {issued.name}


@pytest.mark.parametrize(
    "forgery",
    ["none", "shared secret", "public key as secret", "unknown key", "key of another", "changed", "garbage", "", "two parts", "encrypted", "long", "é.é.é"],
)  # fmt: skip
async def test_a_forged_signature_is_refused(clock, forgery):
    async with site_of(clock) as site:
        issued, liar = await site.sign_in(), site.liar
        token = liar.logout_token()
        match forgery:
            case "none":
                token = unsigned({
                    "iss": liar.url, "aud": CLIENT, "sub": "sub-1", "iat": NOW, "exp": NOW + 60, "jti": "j", "events": {EVENT: {}},
                }) + "x"  # fmt: skip
            case "shared secret":
                liar.signed_by, liar.algorithm = shared_secret("s3cret-of-the-client-that-is-known-to-both"), "HS256"
                token = liar.logout_token()
            case "public key as secret":
                liar.signed_by, liar.algorithm = shared_secret(KEY.as_pem(private=False).decode()[:200]), "HS256"
                token = liar.logout_token()
            case "unknown key":
                liar.signed_by, liar.kid = OTHER, "two"
                token = liar.logout_token()
            case "key of another":
                liar.signed_by = OTHER
                token = liar.logout_token()
            case "changed":
                header, _, signature = token.split(".")
                token = ".".join((header, liar.logout_token(sub="sub-2").split(".")[1], signature))
            case "garbage" | "":
                token = forgery
            case "two parts":
                token = token.rpartition(".")[0]
            case "encrypted":
                token += ".a.b"
            case "long":
                token += "x" * MAX_BYTES
            case _:
                token = forgery
        try:
            assert await site.told(token) == "invalid_request"
        except ValueError:
            assert forgery == "long", "only what is too long does not even get there"
        assert await site.left() == {issued.name}


async def test_a_token_counts_once(clock):
    async with site_of(clock) as site:
        await site.sign_in()
        token = site.liar.logout_token()
        assert await site.told(token) == ""
        again = await site.sign_in()
        assert await site.told(token) == "invalid_request"
        assert await site.left() == {again.name}
        # The same id in another token is the same notice.
        assert await site.told(site.liar.logout_token(jti="one")) == ""
        assert not await site.left()
        again = await site.sign_in()
        assert await site.told(site.liar.logout_token(jti="one")) == "invalid_request"
        assert await site.left() == {again.name}


async def test_how_long_an_id_is_remembered_has_an_end_that_the_issuer_does_not_set(clock):
    async with site_of(clock) as site:
        store, lives = site.hub.stores["identity"], []
        create = store.create

        async def noting(key, value, *, ttl_s=None):
            lives.append((key.partition(".")[0], ttl_s))
            return await create(key, value, ttl_s=ttl_s)

        store.create = noting
        for exp in (NOW + 120, NOW + 10**6):
            assert await site.told(site.liar.logout_token(exp=exp)) == ""
        assert lives == [("logouttokens", 120 + 60 + 60), ("logouttokens", MAX_AGE_S + 60 + 60)]


async def test_a_notice_that_could_not_be_followed_is_no_replay_when_it_comes_again(clock, monkeypatch):
    async with site_of(clock) as site:
        await site.sign_in()
        token = site.liar.logout_token()
        with monkeypatch.context() as broken:

            async def away(*_args, **_more):
                raise errors.Unavailable("the store has no leader")

            broken.setattr(site.tokens.records, "remove", away)
            assert await site.told(token) == "temporarily_unavailable"
        assert await site.told(token) == ""
        assert not await site.left()


async def test_a_session_ends_alone_where_it_is_named(clock):
    async with site_of(clock) as site:
        _, two = await site.sign_in(sid="s-1"), await site.sign_in(sid="s-2")
        assert await site.told(site.liar.logout_token(sid="s-1")) == ""
        assert await site.left() == {two.name}
        # With no word about whose it is.
        three = await site.sign_in(sid="s-1")
        assert await site.told(site.liar.logout_token(sub=None, sid="s-2")) == ""
        assert await site.left() == {three.name}


async def test_a_session_of_another_person_or_of_nobody_ends_nothing_and_is_200(clock):
    async with site_of(clock) as site:
        mine = await site.sign_in(sid="s-1")
        for change in (
            {"sub": "nobody"},
            {"sub": "sub-2", "sid": "s-1"},
            {"sub": None, "sid": "s-9"},
            {"sub": "a b\n"},
        ):
            assert await site.told(site.liar.logout_token(**change)) == ""
        assert await site.left() == {mine.name}


async def test_a_sign_in_of_which_no_session_is_known_ends_with_any_of_the_person(clock):
    async with site_of(clock) as site:
        await site.sign_in()
        assert await site.told(site.liar.logout_token(sid="s-1")) == ""
        assert not await site.left()


async def test_what_was_let_in_by_the_session_ends_with_it_and_what_was_made_for_scripts_stays(clock):
    async with site_of(clock) as site:
        handlers = site.service.handlers

        async def made_with(browser):
            """A command line that it lets in, kubectl's token of that, and a token for scripts."""
            envelope = await site.envelope(browser)
            begun = await site.devices.begin(m.DeviceBegin(description="box"), MESSAGE)
            answer = m.DeviceAnswer(identity=envelope, user_code=begun.user_code, answer="approve")
            await site.devices.look(answer, MESSAGE)
            login = (await site.devices.fetch(m.DeviceFetch(device_code=begun.device_code), MESSAGE)).issued
            asked = m.TokenIssue(identity=await site.envelope(login), purpose="exec")
            kubectl = await handlers.issue_token(asked, MESSAGE)
            script = await handlers.issue_token(m.TokenIssue(identity=envelope, purpose="api"), MESSAGE)
            return login.name, kubectl.name, script.name

        one, two = await site.sign_in(sid="s-1"), await site.sign_in(sid="s-2")
        ours, others = await made_with(one), await made_with(two)
        assert await site.left() == {one.name, two.name, *ours, *others}
        assert await site.told(site.liar.logout_token(sid="s-1")) == ""
        assert await site.left() == {two.name, ours[2], *others}
        # All of the account, too, are its sign-ins.
        assert await site.told(site.liar.logout_token()) == ""
        assert await site.left() == {ours[2], others[2]}


async def test_what_came_from_elsewhere_stays(clock):
    async with site_of(clock) as site:
        sso = await site.sign_in(sid="s-1")
        user = await site.hub.get(User, sso.user)
        local = await site.tokens.issue(user, "session", provider="local")
        corp = await site.tokens.issue(user, "login", provider="corp")
        assert await site.told(site.liar.logout_token()) == ""
        assert await site.left() == {local.name, corp.name}


async def test_one_providers_token_is_nothing_at_anothers_address(clock):
    async with site_of(clock) as site:
        # The same issuer, with a client of its own.
        mine = await site.sign_in(sid="s-1")
        assert await site.told(site.liar.logout_token(), "other") == "invalid_request"
        assert await site.told(site.liar.logout_token(aud="another-client")) == "invalid_request"
        # The other's own word is about the other's account.
        assert await site.told(site.liar.logout_token(aud="another-client", sid="s-1"), "other") == ""
        assert await site.told(site.liar.logout_token(aud="another-client", sub=None, sid="s-1"), "other") == ""
        assert await site.left() == {mine.name}


@pytest.mark.parametrize("name", ["nothing", "corp", "local", "No Provider", "../sso"])
async def test_where_nobody_tells_of_sign_outs_every_token_is_refused(clock, name):
    async with site_of(clock) as site:
        assert await site.told(site.liar.logout_token(), name) == "invalid_request"


async def test_a_disabled_provider_is_believed_nothing(clock):
    async with site_of(clock) as site:
        resource = oidc(site.liar)
        resource.spec.enabled = False
        await site.hub.put(resource)
        assert await site.told(site.liar.logout_token()) == "invalid_request"


async def test_the_account_is_found_by_the_claim_that_names_accounts(clock):
    async with site_of(clock, accountIdClaim="oid") as site:
        issued = await site.sign_in(oid="object-1", sid="s-1")
        # The subject alone does not say whose it is; the session does.
        assert await site.told(site.liar.logout_token()) == "invalid_request"
        assert await site.left() == {issued.name}
        assert await site.told(site.liar.logout_token(sid="s-1")) == ""
        assert not await site.left()
        await site.sign_in(oid="object-1")
        assert await site.told(site.liar.logout_token(oid="object-1")) == ""
        assert not await site.left()


async def test_a_new_key_of_the_issuer_is_asked_for_once_whatever_strangers_send(clock, monkeypatch):
    async with site_of(clock) as site:
        await site.sign_in()
        before = site.liar.fetched_keys
        site.liar.signed_by, site.liar.kid = OTHER, "two"
        assert {await site.told(site.liar.logout_token()) for _ in range(20)} == {"invalid_request"}
        assert site.liar.fetched_keys == before
        # What does not even claim to be of this issuer for us makes the hub ask nobody, ever.
        monkeypatch.setattr("services.identity.providers.issuer.KEYS_AGAIN_S", -1.0)
        for change in ({"iss": "https://evil.example"}, {"aud": "x"}, {"typ": "at+jwt"}):
            assert await site.told(site.liar.logout_token(**change)) == "invalid_request"
        assert site.liar.fetched_keys == before
        site.liar.algorithm, site.liar.signed_by = "HS256", shared_secret("a-secret-that-a-stranger-thought-of-himself")
        assert await site.told(site.liar.logout_token()) == "invalid_request"
        assert site.liar.fetched_keys == before
        site.liar.algorithm, site.liar.signed_by = "RS256", OTHER
        site.liar.keys = [OTHER]
        tokens = [site.liar.logout_token() for _ in range(10)]
        assert set(await asyncio.gather(*map(site.told, tokens))) == {""}
        assert site.liar.fetched_keys == before + 1


async def test_an_issuer_that_is_away_is_no_refusal_and_is_left_alone_for_a_while(clock):
    async with site_of(clock) as site:
        token = site.liar.logout_token()
        site.liar.keys = []
        assert [await site.told(token) for _ in range(5)] == ["temporarily_unavailable"] * 5
        assert site.liar.fetched_keys == 1
        assert oidc_module.FAILED_S > 0


async def test_nothing_of_the_session_can_be_read_by_others(clock):
    async with site_of(clock) as site:
        issued = await site.sign_in(sid="s-very-secret")
        token = await site.hub.get(Token, issued.name)
        assert "s-very-secret" not in str(token.to_document())
        assert token.private.provider_session
        assert token.private.provider_session not in str(token.to_document())
        async for entry in site.hub.stores["identity"].scan(""):
            assert b"s-very-secret" not in entry.value
