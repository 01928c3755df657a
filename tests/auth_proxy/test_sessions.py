"""A browser's session: what its cookie opens, what a page of another site can do with it (nothing), and that no cookie reaches a cluster."""

from __future__ import annotations

import asyncio
import json

import pytest

from libs.common.access.browser_session import COOKIE, csrf_token
from libs.common.resources.identity import Token
from tests.auth_proxy.conftest import Echo

API = "/apis/management.herdsman.dev/v1/clusters"
PODS = "/k8s/clusters/prod/api/v1/namespaces/default/pods"


@pytest.fixture
async def gateway(door):
    made = Echo()
    server = await asyncio.start_unix_server(made.serve, str(door.host.config.gateway_socket))
    try:
        yield made
    finally:
        server.close()


@pytest.fixture
async def session(door, gateway):
    """The text of ada's session token."""
    await door.member()
    return await door.token(await door.user("ada"), purpose="session")


def cookie(session: str) -> str:
    return f"Cookie: a=b; {COOKIE}={session}; c=d"


def proof(session: str) -> str:
    return f"X-CSRF-Token: {csrf_token(session.rpartition('_')[2])}"


async def is_nobody(door, text: str) -> bool:
    """Whether a page with this cookie is served as to anybody."""
    reply = await ask(door, cookie(text))
    assert reply.status == 200
    seen = json.loads(reply.body)["head"]
    return "Herdsman-Identity" not in seen and COOKIE not in seen


async def ask(door, *lines: str, method: str = "GET", path: str = API, token: str = ""):
    return await door.get(path, token, *lines, method=method, body=b"{}" if method == "POST" else b"")


async def test_the_cookie_signs_in_and_goes_no_further_than_the_door(door, session):
    reply = await ask(door, cookie(session))
    assert reply.status == 200
    seen = json.loads(reply.body)["head"]
    assert "Herdsman-Identity: " in seen
    assert session not in seen
    assert "Cookie: a=b; c=d\r\n" in seen


async def test_a_change_needs_the_proof_of_our_own_page(door, session):
    assert (await ask(door, cookie(session), proof(session), method="POST")).status == 200
    assert (
        await ask(door, cookie(session), proof(session), "Sec-Fetch-Site: same-origin", method="POST")
    ).status == 200
    assert (await ask(door, cookie(session), proof(session), "Origin: https://hub", method="POST")).status == 200


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["X-CSRF-Token: "],
        ["X-CSRF-Token: wrong"],
        ["X-CSRF-Token: {proof}", "X-CSRF-Token: {proof}"],
        ["X-CSRF-Token: {proof}", "Sec-Fetch-Site: cross-site"],
        ["X-CSRF-Token: {proof}", "Sec-Fetch-Site: same-site"],
        ["X-CSRF-Token: {proof}", "Origin: https://evil.example"],
        ["X-CSRF-Token: {proof}", "Origin: null"],
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_cve_2019_13209_a_change_from_another_site_is_refused(door, session, gateway, method, lines):
    secret = csrf_token(session.rpartition("_")[2])
    reply = await ask(door, cookie(session), *(line.format(proof=secret) for line in lines), method=method)
    assert reply.status == 403
    assert "own pages" in reply.message
    assert not gateway.heads


@pytest.mark.parametrize("lines", [[], ["X-CSRF-Token: of another session"]])
async def test_our_own_page_without_its_proof_is_nobodys_so_that_one_can_sign_in_again(door, session, lines):
    reply = await ask(door, cookie(session), "Sec-Fetch-Site: same-origin", *lines, method="POST")
    assert reply.status == 200
    assert "Herdsman-Identity" not in json.loads(reply.body)["head"]


async def test_what_another_sites_page_fetches_is_nobodys(door, session):
    for lines, known in (
        (["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"], False),
        (["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], True),
        (["Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"], True),
    ):
        seen = json.loads((await ask(door, cookie(session), *lines)).body)["head"]
        assert ("Herdsman-Identity" in seen) is known


async def test_an_upgrade_needs_the_proof_as_a_change_does(door, session, gateway):
    lines = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    assert (await ask(door, cookie(session), *lines)).status == 403
    assert not gateway.heads


async def test_no_cookie_is_a_credential_on_the_way_to_a_cluster(door, session, echo):
    async with door.agent("prod", echo.address):
        for lines in ([cookie(session)], [cookie(session), proof(session), "Sec-Fetch-Site: same-origin"]):
            assert (await ask(door, *lines, path=PODS)).status == 401
            # Nor after the same connection or the same bytes were known at the hub.
            assert (await ask(door, *lines)).status == 200
            assert (await ask(door, *lines, path=PODS)).status == 401
    assert not echo.heads


async def test_each_token_counts_in_its_own_place(door, session):
    bearer = await door.token(await door.user("ada"))
    assert (await ask(door, token=session)).status == 401
    for wrong in (bearer, "hm_wrong_wrong", session + "x", "", "x" * 600):
        assert await is_nobody(door, wrong)
    # What a program says for itself counts, whatever a browser adds.
    assert (await ask(door, cookie(session), token=bearer, method="POST")).status == 200
    assert (await ask(door, cookie(session), token=bearer)).status == 200
    assert (await ask(door, cookie(session) + f"; {COOKIE}={session}")).status == 401


async def test_the_cookie_of_an_ended_session_keeps_nobody_from_signing_in_again(door, session):
    await door.remove(Token, session.split("_")[1])
    assert await is_nobody(door, session)
    assert (await ask(door, cookie(session), method="POST", path="/v1/login")).status == 200
