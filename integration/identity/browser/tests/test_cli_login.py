"""`herdsman login` by browser: the real command line as a process, a real Chromium, and the hub as its user runs it.

BROWSER names a script that writes down the address which it is given; the test opens that in Chromium, as the person's desktop would.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

import pytest

from integration.flows.test_browser import CHROMIUM, Screen, browsing
from integration.harness.hub import BIN, PASSWORD, Hub, Person, eventually, free_port
from integration.identity import nanoidp
from integration.identity.device import code_of
from services.cli.hub import Hub as Client
from services.cli.settings import load_settings

pytestmark = [
    pytest.mark.asyncio(loop_scope="function"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium, or set HERDSMAN_CHROMIUM"),
]


@pytest.fixture
async def hub(tmp_path) -> AsyncIterator[Hub]:
    async with Hub(tmp_path / "hub", "--no-local-cluster") as made:
        yield made


class Machine:
    """A person's machine with a terminal and a desktop, where `herdsman login` runs."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        folder.mkdir()
        self.hub, self.page_file = hub, folder / "opened"
        self.person = Person(hub, "somebody", folder / "settings")
        self._script = folder / "browser"
        self._script.write_text(
            f'#!/bin/sh\nprintf %s "$1" > {self.page_file}.part && mv {self.page_file}.part {self.page_file}\n'
        )
        self._script.chmod(0o755)

    @asynccontextmanager
    async def login(self, *options: str, **variables: str) -> AsyncIterator[Login]:
        """The process, on a terminal of its own, with these variables in its environment."""
        self.page_file.unlink(missing_ok=True)
        ours, theirs = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SSH_")}
        environment |= {
            "BROWSER": str(self._script), "DISPLAY": ":99", "HERDSMAN_CONFIG_DIR": str(self.person.folder),
            **variables,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            str(BIN / "herdsman"), "login", self.hub.url, "--ca-file", str(self.hub.ca_file), *options,
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        )  # fmt: skip
        os.close(theirs)
        try:
            yield Login(self, process, ours)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            os.close(ours)


class Login:
    def __init__(self, machine: Machine, process: asyncio.subprocess.Process, terminal: int) -> None:
        self.machine, self.process, self._terminal = machine, process, terminal
        os.set_blocking(terminal, False)
        self._heard = b""

    async def page(self) -> str:
        """The address that the browser was given."""

        async def opened() -> bool:
            assert self.process.returncode is None, self._said()
            return self.machine.page_file.exists()

        await eventually(opened, 20)
        return self.machine.page_file.read_text()

    async def says(self, text: str) -> str:
        """All that was said, once this is part of it."""

        async def said() -> str:
            return self._said() if text in self._said() else ""

        return str(await eventually(said, 20))

    async def end(self, timeout_s: float = 10) -> tuple[int, str]:
        """The exit code and all that was said."""
        async with asyncio.timeout(timeout_s):
            code = await self.process.wait()
        return code, self._said()

    def _said(self) -> str:
        try:
            while data := os.read(self._terminal, 65536):
                self._heard += data
        except OSError:
            pass  # nothing more for now; or EIO: how Linux says that nobody holds the other end any more
        return self._heard.decode()


async def give_password(screen: Screen, code: str = "") -> None:
    await screen.page.locator("#user").fill("ada")
    await screen.page.locator("#password").fill(PASSWORD)
    await screen.page.keyboard.press("Enter")
    if code:
        await screen.page.locator("#code").fill(code)
        await screen.page.keyboard.press("Enter")
    await eventually(lambda: screen.page.locator("#new-password, #let-in").locator("visible=true").count())
    if await screen.page.locator("#later").is_visible():
        await screen.page.locator("#later").click()


async def asked(screen: Screen, code: str) -> None:
    """The page asks about this very command line, and about nothing else."""
    await screen.shows("Let a command line in?")
    text = await screen.page.locator("#let-in").inner_text()
    assert f"herdsman on {os.uname().nodename}" in text
    assert "127.0.0.1" in text
    assert code in text
    assert await screen.page.locator("#clusters").is_hidden()
    assert await screen.focused() == "let-in-deny"


def second_factor(person: Person) -> str:
    """Set up for this person, as the page or another program would. Returns the device's secret."""
    (server,) = load_settings(person.folder / "config.json").servers.values()
    with Client(server) as client:
        secret = client.post("/v1/second-factor", {"password": PASSWORD})["secret"]
        client.post("/v1/second-factor/confirm", {"password": PASSWORD, "code": code_of(secret)})
    return secret


async def test_a_person_is_signed_in_by_the_browser_of_the_machine_and_a_refusal_is_told_at_once(hub, tmp_path):
    secret = second_factor(await hub.person("ada"))
    machine = Machine(hub, tmp_path / "machine")
    async with browsing(hub) as screen:
        async with machine.login() as login:
            page = await login.page()
            code = page.rpartition("#login=")[2]
            assert page == f"{hub.url}/ui/#login={code}"
            await screen.page.goto(page)
            await screen.page.reload()
            await screen.shows("Sign in")
            # What the reload cut off.
            screen.problems.clear()
            await give_password(screen, code_of(secret, steps=1))
            await asked(screen, code)
            await screen.picture("cli-login-1-question")
            await screen.page.set_viewport_size({"width": 360, "height": 700})
            assert await screen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            await screen.page.get_by_role("button", name="Let it in").click()
            await screen.shows("You can close this window.")
            landed = urlsplit(screen.page.url)
            assert (landed.scheme, landed.hostname, landed.path) == ("http", "127.0.0.1", "/callback")
            assert parse_qs(landed.query).keys() == {"code", "state"}
            await screen.picture("cli-login-2-landed")
            status, said = await login.end()
        assert status == 0, said
        assert code in said
        assert "signed in to" in said
        assert parse_qs(landed.query)["code"][0] not in said
        who = json.loads(await machine.person.must("whoami", "-o", "json"))
        assert who["status"]["userInfo"]["username"] == "ada"
        tokens = json.loads(await machine.person.must("token", "list", "-o", "json"))["items"]
        described = [(t["spec"]["purpose"], t["spec"].get("description", "")) for t in tokens]
        assert ("login", f"herdsman on {os.uname().nodename}") in described
        # The browser noted the answers of 401 to the first try without a code, and nothing of its policy.
        assert [p for p in screen.problems if "401" not in p] == []

        # Signed in already: the question comes at once, and a refusal ends the wait of the command line.
        async with machine.login() as login:
            page = await login.page()
            await screen.page.goto(page)
            await asked(screen, page.rpartition("#login=")[2])
            began = time.monotonic()
            await screen.page.get_by_role("button", name="Refuse").click()
            status, said = await login.end()
            assert time.monotonic() - began < 3
            await screen.shows("Nothing was let in.")
        assert status == 4, said
        assert "refused in the browser" in said
        # What was answered is over, and the page goes on as ever.
        await screen.page.goto(page)
        await screen.shows("this code is unknown, or its time is over")
        await screen.shows("Work with kubectl")


async def test_ctrl_c_ends_the_wait_of_both_ways(hub, tmp_path):
    machine = Machine(hub, tmp_path / "machine")
    async with machine.login("--browser") as login:
        await login.page()
        login.process.send_signal(signal.SIGINT)
        status, said = await login.end(5)
    assert (status, "Traceback" in said) == (130, False)
    assert "interrupted" in said
    # Over SSH the browser would open where nobody sits.
    async with machine.login(SSH_CONNECTION="192.0.2.1 50000 192.0.2.2 22") as login:
        shown = await login.says("give the code")
        assert f"open {hub.url}/ui/#device" in shown
        login.process.send_signal(signal.SIGINT)
        status, said = await login.end(5)
    assert (status, "Traceback" in said) == (130, False)
    assert not machine.page_file.exists()


def post(hub: Hub, path: str, body: dict[str, object]) -> tuple[int, dict[str, object]]:
    """As anybody on any machine may."""
    request = urllib.request.Request(
        f"{hub.url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=str(hub.ca_file))) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())


async def test_who_lures_a_person_into_confirming_a_login_begun_elsewhere_gets_nothing(hub):
    await hub.person("ada")
    challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    callback = {"port": free_port(), "state": "s" * 43, "code_challenge": challenge}
    attack = {"description": "IT support", "browser": callback}
    _, begun = await asyncio.to_thread(post, hub, "/v1/devices", attack)
    _, elsewhere = await asyncio.to_thread(post, hub, "/v1/devices", {"description": "IT support"})
    async with browsing(hub) as screen:
        # The code of a machine without a browser, which the person would have to type, does not work in an address.
        await screen.page.goto(f"{hub.url}/ui/#login={elsewhere['user_code']}")
        await screen.page.reload()
        await screen.page.locator("#user").fill("ada")
        await screen.page.locator("#password").fill(PASSWORD)
        await screen.page.keyboard.press("Enter")
        await eventually(lambda: screen.page.locator("#new-password, #clusters").locator("visible=true").count())
        if await screen.page.locator("#later").is_visible():
            await screen.page.locator("#later").click()
        await screen.shows("this code is unknown, or its time is over")

        await screen.page.goto(str(begun["verification_uri"]))
        await screen.shows("IT support")
        async with screen.page.expect_request(lambda r: r.url.startswith("http://127.0.0.1:")) as sent:
            await screen.page.get_by_role("button", name="Let it in").click()
        # To the person's own machine, where nobody listens.
        assert (await sent.value).url.startswith(f"http://127.0.0.1:{callback['port']}/callback?code=")
    # dBjf… is the verifier of that challenge (RFC 7636, appendix B): the attacker has it, and not the code.
    fetch = {"device_code": begun["device_code"], "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}
    status, told = await asyncio.to_thread(post, hub, "/v1/devices/fetch", fetch)
    assert (status, "token" in told) == (403, False)
    assert (await asyncio.to_thread(post, hub, "/v1/devices/fetch", fetch))[0] == 404


async def test_who_signs_in_at_a_provider_comes_back_to_the_question(hub, tmp_path):
    people = {"jane": {"password": PASSWORD, "email": "jane@example.org", "groups": [], "roles": ["USER"]}}
    (tmp_path / "issuer").mkdir()
    with nanoidp.running(tmp_path / "issuer", people) as issuer:
        admin = await hub.admin()
        resource = {
            "apiVersion": "management.herdsman.dev/v1", "kind": "IdentityProvider", "metadata": {"name": "sso"},
            "spec": {"type": "oidc", "displayName": "Single sign-on", "enabled": True, "oidc": issuer.settings().to_document()},
        }  # fmt: skip
        await admin.sees("herdsman", "apply", "-f", "-", stdin=json.dumps(resource).encode())
        machine = Machine(hub, tmp_path / "machine")
        async with browsing(hub) as screen, machine.login() as login:
            page = await login.page()
            # The page is open already: the browser only changes its address.
            await screen.page.goto(page)
            await screen.page.get_by_role("link", name="Sign in with Single sign-on").click()
            await screen.page.fill("#username", "jane")
            await screen.page.fill("#password", PASSWORD)
            await screen.page.click("button[type=submit]")
            await asked(screen, page.rpartition("#login=")[2])
            await screen.page.get_by_role("button", name="Let it in").click()
            await screen.shows("You can close this window.")
            status, said = await login.end()
        assert status == 0, said
        assert "as jane" in said
        assert (await machine.person.must("whoami")).strip() == "jane"
