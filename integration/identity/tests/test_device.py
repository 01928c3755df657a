"""A machine without a browser is let in by a person in a real one."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest

from integration.harness.hub import BIN, Hub, run_program

CHROMIUM = os.environ.get("HERDSMAN_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium, or set HERDSMAN_CHROMIUM"),
]


@pytest.mark.parametrize(("button", "code"), [("Let it in", 0), ("Refuse", 4)])
async def test_a_machine_shows_a_code_and_a_person_decides(tmp_path, button, code):
    playwright = pytest.importorskip("playwright.async_api", reason="pip install 'herdsman[dev]'")
    async with Hub(tmp_path / "hub", "--no-local-cluster") as hub:
        password = Path(hub.record()["admin_password_file"]).read_text().strip()
        settings = {"HERDSMAN_CONFIG_DIR": str(tmp_path / "machine")}
        machine = await asyncio.create_subprocess_exec(
            str(BIN / "herdsman"), "login", hub.url, "--ca-file", str(hub.ca_file), "--device", stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, **settings},
        )  # fmt: skip
        assert machine.stdout is not None
        try:
            async with asyncio.timeout(20):
                line = (await machine.stdout.readline()).decode()
            found = re.search(r"open (\S+) in a browser.* the code ([A-Z]{4}-[A-Z]{4})", line)
            assert found, line
            async with playwright.async_playwright() as driver:
                browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
                try:
                    page = await (await browser.new_context(ignore_https_errors=True)).new_page()
                    await page.goto(found[1])
                    await page.fill("#user", "admin")
                    await page.fill("#password", password)
                    await page.click("#sign-in button[type=submit]")
                    await page.fill("#device-code", found[2].lower())
                    await page.click("#device button[type=submit]")
                    decide = page.locator("#device-decide")
                    await playwright.expect(decide).to_contain_text("herdsman on")
                    await playwright.expect(decide).to_contain_text("127.0.0.1")
                    if folder := os.environ.get("HERDSMAN_SCREENSHOTS"):
                        await decide.scroll_into_view_if_needed()
                        await page.screenshot(path=Path(folder) / "device.png")
                    await page.get_by_role("button", name=button).click()
                    await playwright.expect(page.locator("#message")).to_contain_text(
                        "let in" if code == 0 else "refused"
                    )
                finally:
                    await browser.close()
            async with asyncio.timeout(30):
                said = (await machine.stdout.read()).decode()
                assert await machine.wait() == code, said
        finally:
            if machine.returncode is None:
                machine.kill()
                await machine.wait()
        who = await run_program(BIN / "herdsman", "whoami", environment=settings)
        assert (who.code == 0) is (code == 0)
        assert who.out.strip() == ("admin" if code == 0 else "")
