"""The page in a real Chromium, by keyboard alone: sign in with a password that somebody else chose, choose another, see the clusters, sign out.

No violation of the page's policy and no console error may happen on the way. HERDSMAN_SCREENSHOTS names a folder for pictures.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from integration.harness.hub import GIVEN, Hub

playwright = pytest.importorskip("playwright.async_api", reason="pip install 'herdsman[dev]'")
CHROMIUM = os.environ.get("HERDSMAN_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.asyncio(loop_scope="function"),
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium, or set HERDSMAN_CHROMIUM"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
CHOSEN = "a passphrase of one's own"
CLUSTER = b'{"apiVersion":"management.herdsman.dev/v1","kind":"Cluster","metadata":{"name":"%s"},"spec":{}}'
STATUS = "async (path) => { const got = await fetch(path); await got.text(); return got.status; }"


class Screen:
    """A page, what went wrong on it, and pictures of it for people."""

    def __init__(self, page, folder: Path | None) -> None:
        self.page = page
        self.problems: list[str] = []
        self._folder = folder
        page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("requestfailed", lambda request: self.problems.append(f"{request.url}: {request.failure}"))

    async def picture(self, name: str) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for scheme in ("dark", "light"):
            await self.page.emulate_media(color_scheme=scheme)
            await self.page.screenshot(path=self._folder / f"{name}-{scheme}.png")

    async def type(self, *texts: str) -> None:
        """Texts into the fields that follow each other, then Enter. The first field has the focus already."""
        for number, text in enumerate(texts):
            if number:
                await self.page.keyboard.press("Tab")
            await self.page.keyboard.type(text)
        await self.page.keyboard.press("Enter")

    async def tab_to(self, name: str) -> None:
        """Press Tab until the button of this name has the focus."""
        for _ in range(20):
            await self.page.keyboard.press("Tab")
            if await self.page.evaluate("document.activeElement.textContent.trim()") == name:
                return
        raise AssertionError(f"the button {name!r} can't be reached by Tab")

    async def shows(self, text: str, *, timeout_s: float = 10) -> None:
        body = playwright.expect(self.page.locator("body"))
        await body.to_contain_text(text, timeout=timeout_s * 1000, use_inner_text=True)

    async def open(self, part: str) -> None:
        """By the link to it: Clusters, Projects, Access or Account."""
        await self.page.locator("#nav").get_by_role("link", name=part).click()

    async def focused(self) -> str:
        return await self.page.evaluate("document.activeElement.id")


@asynccontextmanager
async def browsing(hub: Hub) -> AsyncIterator[Screen]:
    pictures = os.environ.get("HERDSMAN_SCREENSHOTS")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            # The hub's CA is its own; what the page may load is judged by the page's policy, not by who signed.
            context = await browser.new_context(ignore_https_errors=True, viewport={"width": 1000, "height": 700})
            page = await context.new_page()
            screen = Screen(page, Path(pictures) if pictures else None)
            answer = await page.goto(f"{hub.url}/")
            assert answer is not None
            assert answer.status == 200
            yield screen
        finally:
            await browser.close()


@pytest.fixture
async def own_hub(tmp_path) -> AsyncIterator[Hub]:
    """A hub of this test's own, with dora, who must change her password."""
    hub = Hub(tmp_path, "--no-local-cluster")
    await hub.start()
    admin = await hub.admin()
    for name in (b"berlin", b"harbour-7"):
        await admin.sees("herdsman", "create", "-f", "-", stdin=CLUSTER % name)
    given = tmp_path / "given"
    given.write_text(GIVEN)
    await admin.must("user", "create", "dora", "--password-file", str(given))
    await admin.must("grant", "--user", "dora", "--role", "cluster-viewer", "--global")
    yield hub
    await hub.stop()


async def test_a_person_signs_in_chooses_a_password_sees_clusters_and_signs_out_by_keyboard(own_hub):
    async with browsing(own_hub) as screen:
        await screen.shows("Sign in")
        assert await screen.focused() == "user"
        await screen.picture("1-sign-in")
        await screen.type("dora", "wrong password")
        await screen.shows("the user name or the password is wrong")
        # The browser notes every answer of 401 itself; that one was asked for.
        assert [p for p in screen.problems if "401" not in p] == []
        screen.problems.clear()
        await screen.picture("2-refused")
        await screen.page.reload()
        await screen.type("dora", GIVEN)
        await screen.shows("Choose your own password")
        assert await screen.focused() == "chosen"
        await screen.picture("3-new-password")
        for path, status in (("/v1/session", 200), ("/apis/management.herdsman.dev/v1/clusters", 403)):
            assert await screen.page.evaluate(STATUS, path) == status
        # The browser notes every answer of 403 itself.
        assert [p for p in screen.problems if "403" not in p] == []
        screen.problems.clear()
        # What has to be done is not forgotten with the page.
        await screen.page.reload()
        await screen.shows("Choose your own password")
        assert await screen.focused() == "current"
        await screen.page.keyboard.type(GIVEN)
        await screen.page.keyboard.press("Tab")
        await screen.type(CHOSEN, CHOSEN + "!")
        await screen.shows("The two passwords differ.")
        await screen.page.locator("#chosen").focus()
        await screen.page.keyboard.press("Control+a")
        await screen.page.keyboard.type(CHOSEN)
        await screen.page.keyboard.press("Tab")
        await screen.page.keyboard.press("Control+a")
        await screen.type(CHOSEN)
        await screen.shows("Your password is changed.")
        await screen.shows("harbour-7")
        await screen.shows("berlin")
        await screen.picture("4-clusters")
        await screen.page.set_viewport_size({"width": 380, "height": 700})
        assert await screen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        await screen.picture("5-narrow")
        await screen.tab_to("Sign out")
        await screen.page.keyboard.press("Enter")
        await screen.shows("You are signed out.")
        assert await screen.focused() == "user"
        assert screen.problems == []
        stored = await screen.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
        assert stored == [0, 0, ""]
        # Signed in again with the chosen one, and not asked for another.
        await screen.type("dora", CHOSEN)
        await screen.shows("berlin")
        assert screen.problems == []


async def test_the_browser_itself_refuses_what_the_policy_does_not_allow(own_hub):
    async with browsing(own_hub) as screen:
        await screen.shows("Sign in")
        ran = await screen.page.evaluate(
            "() => { const s = document.createElement('script'); s.textContent = 'window.ran = true';"
            " document.body.append(s); return window.ran === true; }"
        )
        assert ran is False
        assert any("Content Security Policy" in problem for problem in screen.problems)
