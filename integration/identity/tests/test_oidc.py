"""OpenID Connect against a real provider that is not of our making; and the whole way through the hub in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest

from integration.harness.hub import Hub
from integration.identity import nanoidp
from libs.common import errors
from services.identity.providers.oidc import OidcProvider
from tests.conftest import no_task_is_left_behind
from tests.identity.conformance import *  # noqa: F403 - the suite
from tests.identity.conformance import Site

__all__ = ["no_task_is_left_behind"]
pytestmark = pytest.mark.timeout(300)
PASSWORD = "correct horse"
PEOPLE = {
    "jane": {"password": PASSWORD, "email": "jane@example.org", "groups": ["ops", "staff"], "roles": ["USER"]},
    "john": {"password": PASSWORD, "email": "john@example.org", "groups": [], "roles": ["USER"]},
}
CALLBACK = "http://127.0.0.1:9/callback"
CHROMIUM = os.environ.get("HERDSMAN_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    with nanoidp.running(tmp_path_factory.mktemp("issuer"), PEOPLE) as made:
        yield made


async def answer_of(url: str, user: str, password: str) -> dict[str, str]:
    """What a person's browser is sent back with."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(url) as page:
            hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', await page.text()))
        form = {**hidden, "username": user, "password": password}
        async with browser.post(url, data=form, allow_redirects=False) as back:
            assert back.status == 302, await back.text()
            return dict(parse_qsl(urlsplit(back.headers["Location"]).query))


@pytest.fixture
async def provider(issuer):
    made = OidcProvider("sso", issuer.settings())
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture
async def site(issuer, provider):
    async def sign_in(user: str, password: str):
        begun = await provider.begin(CALLBACK, "state")
        return await provider.finish(CALLBACK, await answer_of(begun.url, user, password), begun.secrets)

    async def break_it() -> None:
        issuer.stop()

    try:
        yield Site(provider, "jane", PASSWORD, sign_in, break_it, searches=False, names_are_ids=True)
    finally:
        if issuer.process is None:
            issuer.start()


async def test_the_answer_for_one_browser_is_worth_nothing_in_another(provider):
    mine, others = await provider.begin(CALLBACK, "one"), await provider.begin(CALLBACK, "two")
    answer = await answer_of(others.url, "jane", PASSWORD)
    with pytest.raises(errors.Unauthenticated):
        await provider.finish(CALLBACK, answer, mine.secrets)


async def test_a_code_is_good_once_and_for_the_address_it_was_asked_for(provider):
    begun = await provider.begin(CALLBACK, "state")
    answer = await answer_of(begun.url, "jane", PASSWORD)
    with pytest.raises(errors.Unauthenticated):
        await provider.finish("http://127.0.0.1:9/another", answer, begun.secrets)
    begun = await provider.begin(CALLBACK, "state")
    answer = await answer_of(begun.url, "jane", PASSWORD)
    await provider.finish(CALLBACK, answer, begun.secrets)
    with pytest.raises(errors.Unauthenticated):
        await provider.finish(CALLBACK, answer, begun.secrets)


async def test_another_issuers_answer_is_refused(provider):
    begun = await provider.begin(CALLBACK, "state")
    answer = await answer_of(begun.url, "jane", PASSWORD)
    with pytest.raises(errors.Unauthenticated):
        await provider.finish(CALLBACK, {**answer, "iss": "https://evil.example"}, begun.secrets)


@pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium, or set HERDSMAN_CHROMIUM")
async def test_a_person_signs_in_at_the_provider_and_is_back_signed_in(issuer, tmp_path):
    playwright = pytest.importorskip("playwright.async_api", reason="pip install 'herdsman[dev]'")
    async with Hub(tmp_path / "hub", "--no-local-cluster") as hub:
        admin = await hub.admin()
        settings = issuer.settings().to_document()
        resource = {
            "apiVersion": "management.herdsman.dev/v1", "kind": "IdentityProvider", "metadata": {"name": "sso"},
            "spec": {"type": "oidc", "displayName": "Single sign-on", "enabled": True, "oidc": settings},
        }  # fmt: skip
        await admin.sees("herdsman", "apply", "-f", "-", stdin=json.dumps(resource).encode())
        await admin.must("grant", "--principal", "sso:group:ops", "--role", "admin", "--global")
        async with playwright.async_playwright() as driver:
            browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            try:
                page = await (await browser.new_context(ignore_https_errors=True)).new_page()
                await page.goto(f"{hub.url}/ui/")
                await page.get_by_role("link", name="Sign in with Single sign-on").click()
                await page.fill("#username", "jane")
                await page.fill("#password", PASSWORD)
                await page.click("button[type=submit]")
                await playwright.expect(page.locator("body")).to_contain_text("Signed in as jane", timeout=10_000)
                await page.locator("#nav").get_by_role("link", name="Account").click()
                await playwright.expect(page.locator("#token-rows")).to_contain_text("this one")
                # A reload keeps the session; its token is in no script's reach.
                await page.reload()
                await playwright.expect(page.locator("body")).to_contain_text("Signed in as jane")
                assert "hm_" not in await page.evaluate("document.cookie")
                # The role comes from the group in the token.
                status = await page.evaluate(
                    "fetch('/apis/management.herdsman.dev/v1/identityproviders').then((a) => a.status)"
                )
                assert status == 200
                # The same answer again, from this very browser, is refused in words.
                await page.goto(f"{hub.url}/v1/callback/sso?code=x&state=forged")
                await playwright.expect(page.locator("#message")).to_contain_text("this sign-in has ended")
                await page.click("#sign-out")
                await playwright.expect(page.locator("#message")).to_contain_text("You are signed out.")
            finally:
                await browser.close()
