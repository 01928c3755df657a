"""A provider tells a running hub that somebody was signed out there: one real provider does, and for one that cannot, its own key signs what it would say."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import aiohttp
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from integration.harness.hub import Hub, eventually
from integration.identity import nanoidp, oidc_provider
from tests.conftest import no_task_is_left_behind

__all__ = ["no_task_is_left_behind"]
pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="function")]
needs_node = pytest.mark.skipif(oidc_provider.MISSING, reason="no node: apt-get install nodejs npm")
PASSWORD = "correct horse"
PEOPLE = {"jane": {"password": PASSWORD, "email": "jane@example.org", "groups": ["staff"], "roles": ["USER"]}}
OURS = "/apis/management.herdsman.dev/v1"
EVENT = "http://schemas.openid.net/event/backchannel-logout"


def provider(name: str, settings: dict[str, object]) -> bytes:
    spec = {"type": "oidc", "displayName": f"At {name}", "enabled": True, "oidc": settings}
    meta = {"apiVersion": "management.herdsman.dev/v1", "kind": "IdentityProvider", "metadata": {"name": name}}
    return json.dumps({**meta, "spec": spec}).encode()


@pytest.fixture
async def hub(tmp_path) -> AsyncIterator[Hub]:
    """With two front doors, so that what ends has to end at both."""
    async with Hub(tmp_path / "hub", "--no-local-cluster", "--workers", "2") as made:
        yield made


async def add(hub: Hub, name: str, settings: dict[str, object]) -> None:
    await (await hub.admin()).sees("herdsman", "apply", "-f", "-", stdin=provider(name, settings))


class Browser:
    """A person's browser as far as forms, redirects and cookies go."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        # A connection for each request: any of the front doors may have it.
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=hub.tls(), force_close=True), cookie_jar=aiohttp.CookieJar(unsafe=True)
        )

    async def sign_in(self, name: str, user: str) -> None:
        """Through every page of the provider until the hub is there again."""
        url, form = f"{self.hub.url}/v1/sign-in/{name}", None
        for _ in range(6):
            async with self.http.request("GET" if form is None else "POST", url, data=form) as answer:
                text, url = await answer.text(), str(answer.url)
            if url.startswith(self.hub.url):
                assert (await self.get("/v1/session"))[0] == 200, text
                return
            form = {**hidden(text), "login": user, "username": user, "password": PASSWORD}
            url = urljoin(url, action(text) or url)
        raise AssertionError(f"there is no end to the provider's pages: {text}")

    async def leave_provider(self, issuer: oidc_provider.Issuer) -> float:
        """Sign out at the provider, on its own page. Returns when that was."""
        async with self.http.get(f"{issuer.url}/session/end") as answer:
            text = await answer.text()
        async with self.http.post(action(text), data={**hidden(text), "logout": "yes"}) as answer:
            assert answer.status == 200, await answer.text()
        return time.monotonic()

    async def get(self, path: str) -> tuple[int, str]:
        async with self.http.get(f"{self.hub.url}{path}") as answer:
            return answer.status, await answer.text()

    async def make_token(self) -> str:
        """One for a script."""
        proof = next(c.value for c in self.http.cookie_jar if c.key == "__Host-herdsman-csrf")
        body = {
            "apiVersion": "management.herdsman.dev/v1",
            "kind": "TokenRequest",
            "spec": {"description": "script", "ttlSeconds": 3600},
        }
        headers = {"X-CSRF-Token": proof, "Origin": self.hub.url}
        async with self.http.post(f"{self.hub.url}{OURS}/tokenrequests", json=body, headers=headers) as answer:
            document = await answer.json(content_type=None)
            assert answer.status == 201, document
            return str(document["status"]["token"])

    async def is_out(self) -> bool:
        """Whether no front door knows the session any more: eight connections, none let in."""
        statuses = {status for status, _ in await asyncio.gather(*(self.get("/v1/session") for _ in range(8)))}
        assert statuses <= {200, 401}, statuses
        return statuses == {401}

    async def is_in(self) -> bool:
        return {status for status, _ in await asyncio.gather(*(self.get("/v1/session") for _ in range(8)))} == {200}

    async def watch(self) -> None:
        """Until the hub ends the stream, which by itself would go on for five minutes."""
        async with self.http.get(f"{self.hub.url}{OURS}/tokens?watch=true&timeoutSeconds=300") as answer:
            assert answer.status == 200
            # The gateway ends it in order, or the front door cuts it, whichever hears first.
            with contextlib.suppress(aiohttp.ClientPayloadError):
                async for _ in answer.content.iter_any():
                    continue


def logs_of(hub: Hub) -> str:
    """What all of its processes have said."""
    return "".join(file.read_text(errors="replace") for file in (hub.data / "logs").rglob("*") if file.is_file())


def hidden(page: str) -> dict[str, str]:
    inputs = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
    return {name: html.unescape(value) for name, value in inputs}


def action(page: str) -> str:
    found = re.search(r'<form[^>]* action="([^"]+)"', page)
    return html.unescape(found[1]) if found else ""


@asynccontextmanager
async def browsers(hub: Hub, count: int) -> AsyncIterator[list[Browser]]:
    made = [Browser(hub) for _ in range(count)]
    try:
        yield made
    finally:
        await asyncio.gather(*(browser.http.close() for browser in made))


async def tell(hub: Hub, token: str, name: str) -> tuple[int, dict[str, str]]:
    """The answer of 200 or 400, with what has to be on both."""
    body = urlencode({"logout_token": token}).encode()
    head = (
        f"POST /v1/back-channel-logout/{name} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    head_bytes, _, text = (await hub.raw(head.encode() + body)).partition(b"\r\n\r\n")
    assert b"cache-control: no-store" in head_bytes.lower()
    return int(head_bytes.split()[1]), json.loads(text) if text else {}


@needs_node
async def test_a_sign_out_at_the_provider_ends_that_browsers_session_at_every_front_door_and_no_other(hub, tmp_path):
    with oidc_provider.running(hub, tmp_path) as issuer:
        await add(hub, "sso", issuer.settings())
        async with browsers(hub, 3) as (one, two, other):
            await one.sign_in("sso", "jane")
            await two.sign_in("sso", "jane")
            await other.sign_in("sso", "john")
            watching = asyncio.create_task(one.watch(), name="watch")
            script = await one.make_token()
            assert all([await browser.is_in() for browser in (one, two, other)])
            left = await one.leave_provider(issuer)
            await eventually(one.is_out, 10, 0.02)
            took_s = time.monotonic() - left
            async with asyncio.timeout(5):
                await watching
            assert took_s < 1, took_s
            assert time.monotonic() - left < 1
            # The provider was answered 200 and says so; it named the session.
            assert re.search(r"told of jane \S{10,}\n", issuer.log), issuer.log
            assert await two.is_in()
            assert await other.is_in()
            # A token for a script was no sign-in.
            assert (await hub.get(f"{OURS}/tokens", script))[0] == 200
            # The person comes back as ever.
            await one.sign_in("sso", "jane")
            assert "not told" not in issuer.log


@needs_node
async def test_a_provider_that_names_the_person_alone_ends_all_that_persons_sign_ins(hub, tmp_path):
    with oidc_provider.running(hub, tmp_path, session_required=False) as issuer:
        await add(hub, "sso", issuer.settings())
        async with browsers(hub, 3) as (one, two, other):
            await one.sign_in("sso", "jane")
            await two.sign_in("sso", "jane")
            await other.sign_in("sso", "john")
            left = await one.leave_provider(issuer)
            await eventually(one.is_out, 10, 0.02)
            await eventually(two.is_out, 10, 0.02)
            assert time.monotonic() - left < 1
            assert await other.is_in()
            assert re.search(r"back_channel_logout .* tokens_revoked=2 .* whole_account=True", logs_of(hub))


async def test_only_a_providers_own_word_of_now_counts_and_once(hub, tmp_path):
    with nanoidp.running(tmp_path / "issuer", PEOPLE) as issuer, nanoidp.running(tmp_path / "second", PEOPLE) as second:
        await add(hub, "nano", issuer.settings().to_document())
        await add(hub, "second", second.settings().to_document())

        def signed(by: nanoidp.Issuer = issuer, **change: object) -> str:
            now = int(time.time())
            claims = {
                "iss": issuer.url, "aud": nanoidp.CLIENT, "sub": "jane", "iat": now, "exp": now + 120, "jti": secrets.token_hex(8),
                "events": {EVENT: {}}, **change,
            }  # fmt: skip
            key, kid = key_of(by)
            header = {"alg": "RS256", "kid": kid, "typ": "logout+jwt"}
            return jwt.encode(header, {n: v for n, v in claims.items() if v is not None}, key)

        async with browsers(hub, 1) as (jane,):
            await jane.sign_in("nano", "jane")
            refused = {
                "of another provider, at this one's address": (signed(second, iss=second.url), "nano"),
                "by another provider's key": (signed(second), "nano"),
                "at another provider's address": (signed(), "second"),
                "for another client": (signed(aud="another"), "nano"),
                "with a nonce": (signed(nonce="n"), "nano"),
                "without the event": (signed(events={}), "nano"),
                "about nobody": (signed(sub=None), "nano"),
                "without an id": (signed(jti=None), "nano"),
                "old": (signed(iat=int(time.time()) - 700, exp=int(time.time()) - 600), "nano"),
                "a real ID token": (await id_token(issuer), "nano"),
                "nothing": ("", "nano"),
                "at no provider": (signed(), "nobody"),
            }
            for why, (token, name) in refused.items():
                status, told = await tell(hub, token, name)
                assert (status, told["error"]) == (400, "invalid_request"), why
            assert await jane.is_in()
            token = signed()
            assert await tell(hub, token, "nano") == (200, {})
            left = time.monotonic()
            await eventually(jane.is_out, 10, 0.02)
            assert time.monotonic() - left < 1
            await jane.sign_in("nano", "jane")
            assert (await tell(hub, token, "nano"))[0] == 400
            assert await jane.is_in()
            # Somebody who is not signed in here is as good an answer.
            assert await tell(hub, signed(sub="nobody"), "nano") == (200, {})
            assert await jane.is_in()
        logs = logs_of(hub)
        # All of them but the empty one, which identity never saw, and the one that came twice.
        assert logs.count("back_channel_logout_refused") == len(refused) - 1 + 1
        for why in ("it was sent before", "it is for another client", "it holds a nonce", "it has expired"):
            assert why in logs
        assert not re.search(r"eyJ[\w-]+\.eyJ", logs), "a token is in a log"


def key_of(issuer: nanoidp.Issuer) -> tuple[RSAKey, str]:
    """The provider's own private key, from its folder."""
    keys = issuer.folder / "keys"
    return RSAKey.import_key((keys / "rsa_private.pem").read_text()), (keys / "kid.txt").read_text().strip()


async def id_token(issuer: nanoidp.Issuer) -> str:
    """One that the provider made for this very client, for the very person."""
    back = "http://127.0.0.1:9/callback"
    query = {"response_type": "code", "client_id": nanoidp.CLIENT, "redirect_uri": back, "scope": "openid profile"}
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        url = f"{issuer.url}/authorize?{urlencode(query)}"
        async with http.get(url) as page:
            form = {**hidden(await page.text()), "username": "jane", "password": PASSWORD}
        async with http.post(url, data=form, allow_redirects=False) as answer:
            code = parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0]
        grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": back}
        basic = {"Authorization": aiohttp.encode_basic_auth(nanoidp.CLIENT, nanoidp.SECRET)}
        async with http.post(f"{issuer.url}/token", data=grant, headers=basic) as answer:
            return str((await answer.json())["id_token"])
