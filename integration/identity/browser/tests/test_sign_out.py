"""Signing out on the page in a real Chromium: here alone, or at a real provider too and back; and what a link to the page can make it say (nothing).

HERDSMAN_SCREENSHOTS names a folder for pictures.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from integration.flows.test_browser import CHROMIUM, Screen, browsing
from integration.harness.hub import Hub, eventually
from integration.identity import oidc_provider

pytestmark = [
    pytest.mark.asyncio(loop_scope="function"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium, or set HERDSMAN_CHROMIUM"),
    pytest.mark.skipif(oidc_provider.MISSING, reason="no node: apt-get install nodejs npm"),
]
DONE = "You are signed out."


@pytest.fixture
async def hub(tmp_path) -> AsyncIterator[Hub]:
    async with Hub(tmp_path / "hub", "--no-local-cluster") as made:
        yield made


async def add(hub: Hub, issuer: oidc_provider.Issuer, **settings: object) -> None:
    spec = {"type": "oidc", "displayName": "Single sign-on", "enabled": True, "oidc": issuer.settings(**settings)}
    document = {
        "apiVersion": "management.herdsman.dev/v1",
        "kind": "IdentityProvider",
        "metadata": {"name": "sso"},
        "spec": spec,
    }
    await (await hub.admin()).sees("herdsman", "apply", "-f", "-", stdin=json.dumps(document).encode())


async def sign_in(screen: Screen, hub: Hub, *, asked: bool = True) -> None:
    """`asked`: whether the provider wants to know who that is."""
    # The provider's pages want a font from elsewhere.
    await screen.page.route("https://fonts.googleapis.com/**", lambda route: route.abort())
    await screen.page.goto(f"{hub.url}/ui/")
    await screen.page.get_by_role("link", name="Sign in with Single sign-on").click()
    if asked:
        await screen.page.locator("input[name=login]").fill("jane")
        await screen.page.locator("input[name=password]").fill("anything")
        await screen.page.get_by_role("button", name="Sign-in").click()
        await screen.page.get_by_role("button", name="Continue").click()
    await screen.shows("Signed in as jane")
    await screen.shows("Work with kubectl")


async def names_of_cookies(screen: Screen) -> set[str]:
    return {cookie["name"] for cookie in await screen.page.context.cookies() if "herdsman" in cookie["name"]}


async def test_signing_out_ends_the_session_here_then_the_one_at_the_provider_and_comes_back(hub, tmp_path):
    with oidc_provider.running(hub, tmp_path) as issuer:
        await add(hub, issuer, signOut="provider")
        async with browsing(hub) as screen:
            await sign_in(screen, hub)
            kept = {c["name"]: c["value"] for c in await screen.page.context.cookies()}["__Host-herdsman-session"]
            await screen.picture("sign-out-1-signed-in")
            await screen.page.get_by_role("button", name="Sign out").click()
            await screen.shows("Do you want to sign-out")
            await screen.picture("sign-out-2-at-the-provider")
            asked = {name: values[0] for name, values in parse_qs(urlsplit(screen.page.url).query).items()}
            assert screen.page.url.startswith(f"{issuer.url}/session/end?")
            assert (asked["client_id"], asked["post_logout_redirect_uri"]) == ("herdsman", f"{hub.url}/ui/")
            assert asked["id_token_hint"].count(".") == 2
            # Whatever is answered there, here it is over already.
            assert await names_of_cookies(screen) == set()
            assert (await hub.get("/v1/session", kept))[0] == 401
            await screen.page.get_by_role("button", name="Yes, sign me out").click()
            await screen.shows(DONE)
            assert screen.page.url == f"{hub.url}/ui/"
            assert await screen.page.locator("#sign-in").is_visible()
            assert await screen.page.locator("#message").inner_text() == DONE
            await screen.picture("sign-out-3-back")
            # The provider told the hub as well, which had nothing left to end.
            assert "told of jane" in issuer.log
            # It is said once.
            await screen.page.reload()
            await screen.page.locator("#redirects a").wait_for()
            assert await screen.page.locator("#message").inner_text() == ""
            # Signed out there, too: it asks who that is.
            await sign_in(screen, hub, asked=True)


async def test_who_stays_signed_in_at_the_provider_is_signed_out_here_all_the_same(hub, tmp_path):
    with oidc_provider.running(hub, tmp_path) as issuer:
        await add(hub, issuer, signOut="provider")
        async with browsing(hub) as screen:
            await sign_in(screen, hub)
            await screen.page.get_by_role("button", name="Sign out").click()
            await screen.page.get_by_role("button", name="No, stay signed in").click()
            await screen.shows(DONE)
            assert await names_of_cookies(screen) == set()


async def test_by_itself_it_ends_here_alone_and_the_page_says_where_the_person_may_still_be_signed_in(hub, tmp_path):
    with oidc_provider.running(hub, tmp_path) as issuer:
        await add(hub, issuer)
        async with browsing(hub) as screen:
            await sign_in(screen, hub)
            await screen.page.get_by_role("button", name="Sign out").click()
            await screen.shows(f"{DONE} You may still be signed in at Single sign-on.")
            assert screen.page.url == f"{hub.url}/ui/"
            assert await names_of_cookies(screen) == set()
            await screen.picture("sign-out-4-here-alone")
            # As it is.
            await sign_in(screen, hub, asked=False)


async def test_a_provider_that_is_away_keeps_nobody_signed_in_here(hub, tmp_path):
    with oidc_provider.running(hub, tmp_path) as issuer:
        await add(hub, issuer, signOut="provider")
        async with browsing(hub) as screen:
            await sign_in(screen, hub)
            # Forgotten with the process: the metadata has to be asked for again.
            before = hub.kill("identity")
            issuer.stop()

            async def is_another() -> bool:
                return hub.pids().get("identity") not in (None, before)

            await eventually(is_another, 30)
            await hub.wait_ready()
            await screen.page.get_by_role("button", name="Sign out").click()
            await screen.shows(f"{DONE} You may still be signed in at Single sign-on.")
            assert await names_of_cookies(screen) == set()


async def test_a_link_makes_the_page_say_nothing_and_leads_nowhere(hub):
    async with browsing(hub) as screen:
        for query in ("?state=forged", "?state=", "?state=forged&post_logout_redirect_uri=https://evil.example/"):
            await screen.page.goto(f"{hub.url}/ui/{query}")
            await screen.page.locator("#user").wait_for()
            await screen.page.wait_for_load_state("networkidle")
            assert await screen.page.locator("#message").inner_text() == ""
            assert screen.page.url.startswith(f"{hub.url}/ui/")


async def test_who_signed_in_with_a_password_of_the_hub_is_signed_out_and_nothing_more_is_said(hub):
    async with browsing(hub) as screen:
        await screen.page.locator("#user").fill("admin")
        await screen.page.locator("#password").fill(Path(hub.record()["admin_password_file"]).read_text().strip())
        await screen.page.keyboard.press("Enter")
        await screen.open("Account")
        await screen.shows("(this one)")
        await screen.page.get_by_role("button", name="Sign out").click()
        await screen.shows(DONE)
        assert await screen.page.locator("#message").inner_text() == DONE
        assert screen.problems == []
