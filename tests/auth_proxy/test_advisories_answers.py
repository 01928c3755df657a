"""What a cluster answers: it shares the hub's origin in a browser, and its clients hold tokens for other clusters too."""

from __future__ import annotations

import pytest

from tests.auth_proxy.recorder import PATH, UPGRADES


def redirect(status: int, location: bytes) -> bytes:
    return b"HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, location)


OUTSIDE = [
    b"https://evil.example/x", b"http://hub/k8s/clusters/prod/x", b"//evil.example/x", b"http:evil", b"javascript:alert(1)", b"data:text/html,x", b"/\\evil",
    b"\\\\evil", b"/\t/evil", b"ht\ttp://evil", b"/../other/api", b"/api/../../other/api/v1/secrets", b"../../../other/api", b"..", b"./../../other", b"/%2e%2e/other/api",
    b"/.%2E/other", b"/api/..%2f..%2fother", b"/a/..;/b", b"/../../../agent/v1/challenge", b"/x/.\t./y", b"/..?a", b"/..#a", b"\x80://evil", b"x y",
]  # fmt: skip


@pytest.mark.parametrize("location", OUTSIDE)
async def test_cve_2022_3172_redirect_out_of_the_cluster_is_502(scene, location):
    """Also to another cluster of the same hub: clients resolve dot segments and send the token along."""
    for status in (301, 302, 303, 307, 308):
        scene.upstream.reply = redirect(status, location)
        reply = await scene.say([])
        assert reply.status == 502, reply.raw
        assert location not in reply.raw
    assert len(scene.upstream.heads) == 5


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (b"/api/v1/x", b"/k8s/clusters/prod/api/v1/x"), (b"x", b"x"), (b"?a=http://b/../c", b"?a=http://b/../c"), (b"/a?b=//c", b"/k8s/clusters/prod/a?b=//c"),
        (b"", b""), (b"/api/v1/...", b"/k8s/clusters/prod/api/v1/..."),
    ],
)  # fmt: skip
async def test_cve_2022_3172_redirect_inside_the_cluster_stays_there(scene, location, expected):
    scene.upstream.reply = redirect(302, location)
    reply = await scene.say([])
    assert reply.status == 302
    assert b"\r\nLocation: " + expected + b"\r\n" in reply.head + b"\r\n"


@pytest.mark.parametrize("protocol", UPGRADES)
async def test_cve_2020_8559_redirect_of_an_upgrade_is_never_followed(scene, protocol):
    """Also CVE-2018-1002102."""
    for location in (b"/other", b"https://evil.example/"):
        scene.upstream.clear()
        scene.upstream.reply = redirect(307, location)
        reply = await scene.say(UPGRADES[protocol], target=f"{PATH}/exec", method="POST")
        assert reply.status == (307 if location == b"/other" else 502)
        assert len(scene.upstream.heads) == 1


ORIGIN_WIDE = {
    "Set-Cookie": "session=x", "Set-Cookie2": "x", "Clear-Site-Data": '"*"', "Strict-Transport-Security": "max-age=0", "Alt-Svc": 'h2="evil:443"',
    "Service-Worker-Allowed": "/", "Public-Key-Pins": "x", "Expect-CT": "x", "NEL": "{}", "Report-To": "{}", "Reporting-Endpoints": 'a="https://evil"',
    "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true", "Access-Control-Allow-Private-Network": "true", "Accept-CH": "x",
    "Refresh": "0;url=https://evil", "WWW-Authenticate": "Basic realm=hub", "Proxy-Authenticate": "Basic realm=hub", "X-Accel-Redirect": "/internal",
    "X-Sendfile": "/etc/passwd", "Use-As-Dictionary": "x", "Set-Login": "logged-out", "Critical-CH": "x", "Speculation-Rules": "x",
}  # fmt: skip


async def test_cve_2021_25313_answer_of_a_cluster_cannot_act_in_the_hubs_origin(scene):
    """Also CVE-2022-43760, CVE-2023-32192, CVE-2023-32193, CVE-2024-52281: no script of a cluster runs as a page of the hub."""
    lines = "".join(f"{name}: {value}\r\n{name.upper()}: {value}\r\n" for name, value in ORIGIN_WIDE.items())
    scene.upstream.reply = (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{lines}Content-Security-Policy: x\r\nX-Content-Type-Options: x\r\n"
        "Warning: 299 - w\r\nContent-Length: 2\r\n\r\nok"
    ).encode()
    for method in ("GET", "POST"):
        reply = await scene.say([], method=method)
        assert reply.status == 200
        head = reply.head.lower()
        for name in ORIGIN_WIDE:
            assert f"\r\n{name.lower()}:".encode() not in head, name
        assert head.count(b"content-security-policy: sandbox") == head.count(b"content-security-policy:") == 1
        assert head.count(b"x-content-type-options: nosniff") == head.count(b"x-content-type-options:") == 1
        assert b"Warning: 299 - w" in reply.head


async def test_cve_2021_25313_own_errors_never_hold_markup(scene):
    """What a client wrote comes back as JSON that no browser takes for a page."""
    for reply in [
        await scene.say([], target="/k8s/clusters/<script>/x"), await scene.say([], target="/k8s/clusters/none/<script>"),
        await scene.say(["Upgrade: <script>", "Connection: upgrade"]), await scene.say(["X: \x01<script>"]),
    ]:  # fmt: skip
        assert reply.status in (400, 403)
        assert b"Content-Type: application/json\r\n" in reply.head
        assert b"<script>" not in reply.raw


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nok", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n\r\n", b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n", b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nSet-Cookie: x\r\n\r\n",
    ],
)  # fmt: skip
async def test_response_splitting_answer_that_reads_in_two_ways_is_502(scene, reply):
    scene.upstream.reply = reply
    assert (await scene.say([])).status == 502


async def test_response_splitting_second_answer_is_nobodys(scene):
    """Bytes behind an answer are never given to the next request."""
    scene.upstream.reply = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    )
    for _ in range(5):
        reply = await scene.say([])
        assert reply.raw.endswith(b"\r\n\r\nok")
    assert len(scene.upstream.connections) == 5


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_response_splitting_body_of_an_answer_that_has_none_is_nobodys(scene, status):
    scene.upstream.reply = f"HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nevil".encode()
    for _ in range(3):
        scene.upstream.clear()
        reader, writer = await scene.door.connect()
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {scene.token}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert status.encode() in head
        writer.write(
            f"HEAD {PATH} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {scene.token}\r\n\r\n".encode()
        )
        assert b"evil" not in await reader.read()
        writer.close()
