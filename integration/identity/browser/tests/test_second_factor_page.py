"""A second factor on the page, in a real Chromium against the hub as its user runs it: set up, used, removed, and required before anything else.

HERDSMAN_SCREENSHOTS names a folder for pictures.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from integration.flows.test_browser import CHROMIUM, STATUS, Screen, browsing
from integration.harness.hub import PASSWORD, Hub
from integration.identity.device import code_of

pytestmark = [
    pytest.mark.asyncio(loop_scope="function"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium, or set HERDSMAN_CHROMIUM"),
]
CLUSTERS = "/apis/management.herdsman.dev/v1/clusters"


@pytest.fixture
async def hub(tmp_path) -> AsyncIterator[Hub]:
    async with Hub(tmp_path, "--no-local-cluster") as made:
        await made.person("ada")
        yield made


async def sign_in(screen: Screen, password: str = PASSWORD) -> None:
    await screen.shows("Sign in")
    await screen.page.fill("#user", "ada")
    await screen.page.fill("#password", password)
    await screen.page.keyboard.press("Enter")


async def set_up(screen: Screen) -> tuple[str, list[str]]:
    """From the page's form to the recovery codes. Returns the device's secret and the codes."""
    page = screen.page
    await page.fill("#factor-password", PASSWORD)
    await page.keyboard.press("Enter")
    await screen.shows("The code that it shows now")
    assert await screen.focused() == "factor-code"
    secret = (await page.inner_text("#factor-secret")).replace(" ", "")
    assert await page.evaluate("document.querySelector('#factor-picture path').getBBox().width") > 20
    await page.locator("#factor-picture").scroll_into_view_if_needed()
    await screen.picture("factor-1-device")
    await page.fill("#factor-code", "000000")
    await page.keyboard.press("Enter")
    await screen.shows("check the clock of the device")
    # The browser notes every answer of an error itself; that one was asked for.
    assert [p for p in screen.problems if "422" not in p] == []
    screen.problems.clear()
    await page.fill("#factor-code", code_of(secret))
    await page.keyboard.press("Enter")
    await screen.shows("This is the only time that they are shown")
    codes = (await page.inner_text("#recovery-codes")).split()
    assert len(codes) == 10
    assert not await page.inner_text("#factor-secret")
    await screen.picture("factor-2-codes")
    return secret, codes


async def test_a_person_sets_up_a_second_factor_signs_in_with_it_and_removes_it(hub):
    async with browsing(hub) as screen:
        await sign_in(screen)
        await screen.open("Account")
        await screen.shows("Second factor")
        secret, codes = await set_up(screen)
        async with screen.page.expect_download() as downloading:
            await screen.page.click("#codes-download")
        assert (await (await downloading.value).path()).read_text().split() == codes
        await screen.page.click("#codes-done")
        await screen.shows("you are asked for a code of your device")
        assert not await screen.page.inner_text("#recovery-codes")
        await screen.page.click("#sign-out")
        await screen.shows("You are signed out.")
        assert screen.problems == []
        await sign_in(screen)
        await screen.shows("One-time code")
        await screen.page.fill("#code", code_of(secret, steps=1))
        await screen.page.keyboard.press("Enter")
        await screen.shows("you are asked for a code of your device")
        screen.problems.clear()
        await screen.page.fill("#remove-password", PASSWORD)
        await screen.page.fill("#remove-code", codes[0])
        await screen.page.keyboard.press("Enter")
        await screen.shows("The second factor is removed.")
        await screen.page.click("#sign-out")
        await screen.shows("You are signed out.")
        await sign_in(screen)
        await screen.shows("whoever learns your password still cannot sign in")
        await screen.picture("factor-3-none")
        assert screen.problems == []


async def test_where_a_second_factor_is_required_it_comes_before_anything_else(hub):
    admin = await hub.admin()
    patch = json.dumps({"spec": {"local": {"requireOneTimeCode": True}}})
    await admin.sees("herdsman", "patch", "identityprovider", "local", "--type", "merge", "-p", patch)
    async with browsing(hub) as screen:
        await sign_in(screen)
        await screen.shows("until you have set one up, nothing else is allowed")
        assert await screen.focused() == "factor-password"
        assert not await screen.page.locator("#clusters").is_visible()
        assert await screen.page.evaluate(STATUS, CLUSTERS) == 403
        screen.problems.clear()
        await screen.page.reload()
        await screen.shows("until you have set one up, nothing else is allowed")
        await set_up(screen)
        await screen.page.click("#codes-done")
        await screen.open("Account")
        await screen.shows("(this one)")
        assert await screen.page.evaluate(STATUS, CLUSTERS) == 200
        assert screen.problems == []
