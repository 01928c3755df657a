"""Browser sessions in a real Chromium against the hub as its user runs it: what keeps a session, what ends it, and what another site can do (nothing).

HERDSMAN_SCREENSHOTS names a folder for pictures.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from integration.flows.test_browser import CHROMIUM, Screen, browsing
from integration.harness.hub import PASSWORD, Hub, eventually
from services.cli.up.layout import Layout

pytestmark = [
    pytest.mark.asyncio(loop_scope="function"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium, or set HERDSMAN_CHROMIUM"),
]
IDLE_S = 20
TOKENS = "/apis/management.herdsman.dev/v1/tokens"
ATTACK = """async ([url, tokens]) => {
  const tries = [
    fetch(url + "/v1/logout", {method: "POST", mode: "no-cors", credentials: "include"}),
    fetch(url + tokens, {method: "DELETE", credentials: "include"}),
    fetch(url + tokens, {credentials: "include"}).then((answer) => answer.text()),
    fetch(url + "/v1/logout", {method: "POST", credentials: "include", headers: {"X-CSRF-Token": "guess"}}),
  ];
  const form = document.createElement("form");
  form.method = "POST"; form.action = url + "/v1/logout"; form.target = "f";
  const frame = document.createElement("iframe"); frame.name = "f";
  const loaded = new Promise((done) => { frame.onload = done; setTimeout(done, 3000); });
  document.body.append(frame, form); form.submit();
  await loaded;
  return (await Promise.allSettled(tries)).map((one) => one.status === "fulfilled" ? typeof one.value : "refused");
}"""


@pytest.fixture
async def hub(tmp_path) -> AsyncIterator[Hub]:
    async with Hub(tmp_path, "--no-local-cluster") as made:
        await made.person("ada")
        yield made


async def hurry(hub: Hub) -> None:
    """From now on its sessions end soon when they are not used: identity starts again with other settings, which `herdsman up` only writes when it starts."""
    file = Layout(hub.data).config("identity")
    file.write_text(json.dumps({**json.loads(file.read_text()), "session_idle_s": IDLE_S}))
    before = hub.kill("identity")

    async def is_another() -> bool:
        return hub.pids().get("identity") not in (None, before)

    await eventually(is_another, 30)
    await hub.wait_ready()


async def sign_in(screen: Screen) -> None:
    await screen.shows("Sign in")
    await screen.page.locator("#user").fill("ada")
    await screen.page.locator("#password").fill(PASSWORD)
    await screen.page.keyboard.press("Enter")
    await screen.open("Account")
    await screen.shows("(this one)")


async def status(screen: Screen, path: str = "/v1/session") -> int:
    return int(await screen.page.evaluate("async (path) => (await fetch(path)).status", path))


@asynccontextmanager
async def another_origin(hub: Hub) -> AsyncIterator[int]:
    """The port of a server of pages that are not the hub's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = hub.ca_file.parent
    context.load_cert_chain(*(next(folder.rglob(name)) for name in ("server*.crt", "server*.key")))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\nConnection: close\r\n\r\nevil"
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def test_a_session_outlives_a_reload_and_ends_for_both_sides_when_it_is_revoked_elsewhere(hub):
    async with browsing(hub) as screen, browsing(hub) as other:
        await sign_in(screen)
        cookies = {c["name"]: c for c in await screen.page.context.cookies()}
        kept = cookies["__Host-herdsman-session"]
        assert (kept["httpOnly"], kept["secure"], kept["sameSite"], kept["path"]) == (True, True, "Lax", "/")
        assert kept["value"] not in await screen.page.evaluate("document.cookie")
        await screen.page.reload()
        await screen.shows("(this one)")
        assert screen.problems == []
        await screen.picture("sessions-1-list")

        # An API token: shown once, gone from the page with Done, and good for what it was made for.
        await screen.page.locator("summary", has_text="Make an API token").click()
        await screen.page.locator("#token-description").fill("backup <b>script</b>")
        await screen.picture("sessions-2-make")
        await screen.page.keyboard.press("Enter")
        await screen.shows("This is the only time")
        text = await screen.page.locator("#new-token").inner_text()
        assert (await hub.get("/v1/session", text))[0] == 200
        assert (await hub.get("/v1/session", kept["value"]))[0] == 401
        await screen.picture("sessions-3-made")
        await screen.page.locator("#made-done").click()
        assert text not in await screen.page.content()
        await screen.shows("backup <b>script</b> (read-only)")
        await screen.page.set_viewport_size({"width": 360, "height": 800})
        assert await screen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        await screen.picture("sessions-4-narrow")

        await sign_in(other)
        theirs = other.page.locator("#token-rows tr", has_text="Browser").filter(has_not_text="(this one)")
        await theirs.get_by_role("button").click()
        await other.shows("It is revoked.")
        began = time.monotonic()
        await eventually(lambda: is_refused(screen), 5)
        assert time.monotonic() - began < 3
        await screen.shows("Your session has ended. Sign in again.")
        assert await status(other) == 200
        # The dead cookie is still there, and keeps nobody out.
        await screen.page.reload()
        await sign_in(screen)
        # Neither does a live one without its proof, which a cleaner of cookies took.
        await screen.page.evaluate("document.cookie = '__Host-herdsman-csrf=; Max-Age=0; Path=/; Secure'")
        await screen.page.locator("#token-rows tr", has_text="(this one)").get_by_role("button").click()
        await screen.shows("Your session has ended. Sign in again.")
        await sign_in(screen)


async def is_refused(screen: Screen) -> bool:
    return await status(screen) == 401


async def test_a_page_of_another_origin_can_neither_act_nor_read(hub):
    async with another_origin(hub) as port, browsing(hub) as screen:
        await sign_in(screen)
        # To the second one the browser does send the cookie: another port is the same site.
        for host in ("evil.localhost", urlsplit(hub.url).hostname):
            attacker = await screen.page.context.new_page()
            sent: list[str] = []
            attacker.on("request", lambda request, sent=sent: sent.append(request.url))
            await attacker.goto(f"https://{host}:{port}/")
            results = await attacker.evaluate(ATTACK, [hub.url, TOKENS])
            assert results[1:] == ["refused"] * 3
            assert f"{hub.url}/v1/logout" in sent
            assert await status(screen) == 200
        await screen.page.reload()
        await screen.shows("(this one)")


async def test_an_unused_session_is_warned_and_ends_and_a_used_one_goes_on(hub):
    await hurry(hub)
    async with browsing(hub) as screen:
        await sign_in(screen)
        began = time.monotonic()
        while time.monotonic() - began < IDLE_S + 3:
            await screen.page.keyboard.press("Shift")
            await asyncio.sleep(1)
        assert await status(screen) == 200
        # It stands there for a quarter of the limit: looked for in the page itself, at every frame.
        await screen.page.locator("#ending").wait_for(state="visible", timeout=(IDLE_S + 15) * 1000)
        await screen.picture("sessions-5-ending")
        await screen.shows("Your session has ended. Sign in again.", timeout_s=IDLE_S + 15)
        assert await screen.focused() == "user"
