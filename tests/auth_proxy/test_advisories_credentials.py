"""Credentials: what is no good token is 401 wherever it is sent, a browser's cookie counts for nothing, and no secret is written down."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.auth_proxy.recorder import FORMS, PATH

BAD = [
    "", " ", "Bearer", "Bearer ", "Bearer  \t", "bearer", "Bearer hm_", "Bearer hm__", "Bearer hm___", "Bearer hm_x", "Bearer hm_x_", "Bearer _", "Bearer x",
    "Bearer null", "Bearer undefined", "Basic YTpi", "Basic", "Negotiate x", "Digest x", "Token {token}", "{token}", "Bearer={token}", "Bearer,{token}",
    "Bearer\t{token}", "Bearer {token} x", "Bearer {token},{token}", 'Bearer "{token}"', "Bearer {token}x", "Bearer x{token}", "Bearer HM{rest}",
    "Bearer {short}", "Bearer {name}_", "Bearer {upper}", "Bearer hmr{rest}", "Bearer hm_{secret}_{id}", "Bearer {token}\u00e9", "Bearer " + "a" * 5000,
]  # fmt: skip


async def test_cve_2023_48312_what_is_no_good_token_is_401(scene):
    kind, name, secret = scene.token.split("_", 2)
    words = {
        "token": scene.token, "rest": scene.token[2:], "short": scene.token[:-1], "name": f"{kind}_{name}", "upper": scene.token.swapcase(), "secret": secret, "id": name,
    }  # fmt: skip
    faults = []
    for credential in BAD:
        line = f"Authorization: {credential.format(**words)}"
        for form, lines in FORMS.items():
            reply = await scene.say([line, *lines], token="")
            if reply.status != 401 or b"WWW-Authenticate: Bearer" not in reply.head:
                faults.append((credential, form, reply.raw))
    assert not faults
    assert not scene.upstream.heads


async def test_cve_2023_48312_one_good_credential_among_several_is_none(scene):
    good = f"Authorization: Bearer {scene.token}"
    for lines in (
        ["Authorization: Bearer x", good],
        [good, "Authorization: Bearer x"],
        [good, good],
        [good, "Authorization:"],
    ):
        assert (await scene.say(lines, token="")).status == 401
    assert not scene.upstream.heads


@pytest.mark.parametrize(
    "target",
    ["{0}?token={1}", "{0}?access_token={1}", "{0}?authorization=Bearer%20{1}", "{0}?bearer={1}", "{0}/{1}"],
)
async def test_cve_2023_48312_token_in_the_address_counts_for_nothing(scene, target):
    reply = await scene.say([], target=target.format(PATH, scene.token), token="")
    assert reply.status == 401
    assert scene.token not in reply.raw.decode()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://hub", ""])
async def test_cve_2019_13209_cross_site_websocket_with_a_cookie_is_nobody(scene, origin):
    """No cookie is honoured on the way to a cluster, so a page of another site has nothing that a browser would add by itself."""
    lines = [
        f"Cookie: session={scene.token}; token={scene.token}; Authorization=Bearer {scene.token}",
        *([f"Origin: {origin}"] if origin else []),
    ]
    for form, extra in FORMS.items():
        reply = await scene.say([*lines, *extra], token="")
        assert reply.status == 401, form
    assert not scene.upstream.heads


async def test_cve_2023_22649_no_secret_is_written_down(scene, capfd):
    """Also CVE-2024-58269, CVE-2019-11250, CVE-2020-8565: tokens in any place of a request, good and bad, audit file and log."""
    secret = scene.token.split("_", 2)[2]
    where = {
        "target": f"{PATH}?token={scene.token}&x=hm_a_{secret}",
        "path": f"{PATH}/{scene.token}/x",
        "encoded path": f"{PATH}/hm%5Fabc%5F{secret}",
    }
    for target in where.values():
        await scene.say(["Cookie: a=" + scene.token, f"User-Agent: {scene.token}", f"X-A: {secret}"], target=target)
        await scene.say([], target=target, token=f"hm_zzz_{secret}")
        await scene.say([], target=target, token="")
    await scene.say([f"Connection: {scene.token}"])
    await scene.say([f"Upgrade: {scene.token}", "Connection: upgrade"])
    await asyncio.sleep(0.7)
    written = scene.door.audit_file.read_text()
    assert len(written.splitlines()) >= 9
    for line in written.splitlines():
        json.loads(line)
    assert secret not in written
    out, err = capfd.readouterr()
    assert secret not in out + err


async def test_token_guessing_unknown_and_wrong_are_told_alike(scene):
    name = scene.token.split("_")[1]
    wrong = await scene.say([], token=f"hm_{name}_{'a' * 43}")
    unknown = await scene.say([], token=f"hm_nobody_{'a' * 43}")
    assert wrong.status == unknown.status == 401
    assert wrong.body == unknown.body
