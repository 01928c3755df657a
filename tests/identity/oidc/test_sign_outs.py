"""Signing out on the page: here first, and at the provider where its settings want that and it has a place for it."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from libs.common import errors
from libs.common.contracts import messages as m
from libs.common.resources.identity import Token, User
from libs.common.resources.providers import IdentityProvider
from tests.identity.oidc.site import PAGE, oidc, site_of
from tests.identity.service import MESSAGE
from tests.identity.test_accounts import provider


async def sign_out(site, issued, return_to: str = PAGE) -> m.TokenRevoked:
    request = m.TokenRevoke(identity=await site.envelope(issued), return_to=return_to)
    left = await site.sign_outs.revoke(request, MESSAGE)
    with pytest.raises(errors.NotFound):
        await site.hub.get(Token, issued.name)
    return left


async def test_by_itself_only_the_session_here_ends_and_the_person_is_told_so(clock):
    async with site_of(clock) as site:
        assert await sign_out(site, await site.sign_in()) == m.TokenRevoked(still_signed_in_at="Single sign-on")


async def test_where_the_settings_want_it_the_browser_is_sent_to_the_provider_and_back_with_a_state(clock):
    async with site_of(clock, signOut="provider") as site:
        issued = await site.sign_in()
        left = await sign_out(site, issued)
        assert left.url.startswith(f"{site.liar.url}/end?")
        asked = {name: values[0] for name, values in parse_qs(urlsplit(left.url).query).items()}
        hint = asked.pop("id_token_hint")
        assert hint.count(".") == 2
        assert asked == {"client_id": "herdsman", "post_logout_redirect_uri": PAGE, "state": left.state}
        assert len(left.state) >= 32
        assert left.still_signed_in_at == ""
        # Another sign-in, another state; what was kept for the first is gone.
        assert (await sign_out(site, await site.sign_in())).state != left.state
        assert not [e.key async for e in site.hub.stores["identity"].scan("signouthints") if not e.deleted]


async def test_what_was_kept_for_the_sign_out_is_sealed(clock):
    async with site_of(clock, signOut="provider") as site:
        issued = await site.sign_in()
        kept = [e.value async for e in site.hub.stores["identity"].scan("signouthints")]
        assert len(kept) == 1
        (hint,) = parse_qs(urlsplit((await sign_out(site, issued)).url).query)["id_token_hint"]
        assert not [part for part in hint.split(".") if part.encode() in kept[0]]


async def test_a_hint_that_would_make_the_address_too_long_is_left_out(clock):
    async with site_of(clock, signOut="provider") as site:
        left = await sign_out(site, await site.sign_in(more="x" * 4000))
        assert "id_token_hint" not in left.url
        assert "client_id=herdsman" in left.url


async def test_a_provider_without_a_place_for_it_or_that_is_away_keeps_nobody_signed_in_here(clock):
    async with site_of(clock, signOut="provider") as site:
        site.liar.metadata = {"end_session_endpoint": None}
        assert await sign_out(site, await site.sign_in()) == m.TokenRevoked(still_signed_in_at="Single sign-on")
    async with site_of(clock, signOut="provider") as site:
        issued = await site.sign_in()
        resource = await site.hub.get(IdentityProvider, "sso")
        resource.spec.enabled = False
        await site.hub.put(resource)
        assert await sign_out(site, issued) == m.TokenRevoked(still_signed_in_at="Single sign-on")


@pytest.mark.parametrize("place", ["http://evil.example/end", "javascript:alert(1)", "//evil.example"])
async def test_a_place_that_is_not_https_is_no_place(clock, place):
    async with site_of(clock, signOut="provider") as site:
        site.liar.metadata = {"end_session_endpoint": place}
        with pytest.raises(errors.Invalid, match="end_session_endpoint is not https"):
            await site.sign_in()


async def test_sessions_from_elsewhere_and_command_lines_are_led_nowhere(clock):
    async with site_of(clock, signOut="provider") as site:
        sso = await site.sign_in()
        person = await site.hub.get(User, sso.user)
        await site.hub.put(provider("local", type="local", ldap=None), provider("corp"))
        for purpose, name in (
            ("session", "local"),
            ("session", "corp"),
            ("session", ""),
            ("session", "gone"),
            ("login", "sso"),
            ("api", "sso"),
        ):
            issued = await site.tokens.issue(person, purpose, provider=name)
            assert await sign_out(site, issued) == m.TokenRevoked()
        # Who did not ask to come back is a program.
        assert await sign_out(site, sso, "") == m.TokenRevoked()


async def test_signing_out_twice_is_as_signed_out_as_can_be(clock):
    async with site_of(clock, signOut="provider") as site:
        envelope = await site.envelope(await site.sign_in())
        request = m.TokenRevoke(identity=envelope, return_to=PAGE)
        assert (await site.sign_outs.revoke(request, MESSAGE)).url
        assert await site.sign_outs.revoke(request, MESSAGE) == m.TokenRevoked()


async def test_nobody_waits_long_for_a_provider_that_is_silent(clock, monkeypatch):
    async with site_of(clock, signOut="provider") as site:
        issued = await site.sign_in()
        # Settings that changed make the provider ask for its metadata again.
        await site.hub.put(oidc(site.liar, signOut="provider", clockSkewSeconds=59))
        monkeypatch.setattr("services.identity.sign_outs.ASK_S", 0.05)
        site.liar.delay_s = 1.0
        assert await sign_out(site, issued) == m.TokenRevoked(still_signed_in_at="Single sign-on")


async def test_a_session_at_github_goes_on_and_the_person_is_told(clock):
    async with site_of(clock) as site:
        person = await site.hub.get(User, (await site.sign_in()).user)
        await site.hub.put(provider("hub", type="github", ldap=None, github={"clientId": "c"}))
        issued = await site.tokens.issue(person, "session", provider="hub")
        assert await sign_out(site, issued) == m.TokenRevoked(still_signed_in_at="hub")
