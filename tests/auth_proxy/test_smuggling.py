"""The corpus of advisories: whatever a client writes, the cluster sees exactly the identity that the hub computed, or nothing."""

from __future__ import annotations

import re

import pytest

PATH = "/k8s/clusters/prod/api/v1/secrets"

ATTACKS = {
    "CVE-2021-31999 Connection names the identity": ["Connection: Impersonate-User"],
    "CVE-2022-23652 in lower case": ["connection: impersonate-user, close"],
    "CVE-2022-23652 in upper case": ["CONNECTION: IMPERSONATE-GROUP"],
    "Connection names it after a blank": ["Connection: close , Impersonate-Group"],
    "Connection names Authorization": ["Connection: Authorization"],
    "Connection names an extra, in a second line": [
        "Connection: close",
        "Connection: Impersonate-Extra-Herdsman-Principal",
    ],
    "Connection names it beside an upgrade": ["Connection: Upgrade, Impersonate-User", "Upgrade: SPDY/3.1"],
    "CVE-2026-17107 groups are joined": ["Impersonate-Group: system:masters"],
    "CVE-2021-36776 own user": ["Impersonate-User: admin"],
    "GHSA-r5c2-7hp9-v678 own uid": ["Impersonate-Uid: 1"],
    "own extra": ["Impersonate-Extra-Scopes: all"],
    "own user in odd case": ["iMpErSoNaTe-uSeR: admin"],
    "CVE-2026-61682 X-Remote-User": ["X-Remote-User: admin"],
    "CVE-2026-61682 X-Remote-Group": ["x-remote-group: system:masters"],
    "CVE-2025-64484 underscore": ["Impersonate_User: admin"],
    "underscore and dash mixed": ["Impersonate-Extra_x: admin"],
    "X_Remote_User": ["X_Remote_User: admin"],
    "the hub's own envelope": ["Herdsman-Identity: abc.def"],
    "obs-fold": ["X-A: b\r\n Impersonate-User: admin"],
    "obs-fold with a tab": ["X-A: b\r\n\tImpersonate-User: admin"],
    "bare LF": ["X-A: b\nImpersonate-User: admin"],
    "bare CR": ["X-A: b\rImpersonate-User: admin"],
    "NUL": ["X-A: b\0Impersonate-User: admin"],
    "blank before the colon": ["Impersonate-User : admin"],
    "blank before the name": [" Impersonate-User: admin"],
    "line without colon": ["Impersonate-User"],
    "empty name": [": Impersonate-User"],
    "not ASCII in a name": ["Impersonate\u00e9-User: admin"],
    "Content-Length and Transfer-Encoding": ["Content-Length: 5", "Transfer-Encoding: chunked"],
    "two Content-Lengths": ["Content-Length: 5", "Content-Length: 6"],
    "two equal Content-Lengths": ["Content-Length: 0", "Content-Length: 0"],
    "Content-Length list": ["Content-Length: 5, 5"],
    "Content-Length with a sign": ["Content-Length: +5"],
    "Content-Length in hexadecimal": ["Content-Length: 0x5"],
    "Transfer-Encoding twice": ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    "Transfer-Encoding with more": ["Transfer-Encoding: gzip, chunked"],
    "Transfer-Encoding obscured": ["Transfer-Encoding: xchunked"],
    "two Hosts": ["Host: other"],
    "two credentials": ["Authorization: Bearer x"],
    "unknown expectation": ["Expect: 200-maybe"],
    "h2c upgrade": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x"],
    "unknown protocol": ["Connection: Upgrade", "Upgrade: raw"],
    "two protocols": ["Connection: Upgrade", "Upgrade: websocket", "Upgrade: SPDY/3.1"],
    "the tunnel's own protocol": ["Connection: Upgrade", "Upgrade: herdsman-tunnel/1"],
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack_never_reaches_the_cluster(door, echo, name):
    token = await door.member()
    head = [f"GET {PATH} HTTP/1.1", "Host: hub", f"Authorization: Bearer {token}", *ATTACKS[name]]
    if not any(line.lower().startswith("connection") for line in ATTACKS[name]):
        head.append("Connection: close")
    async with door.agent("prod", echo.address):
        reply = await door.talk("\r\n".join(head).encode("latin-1") + b"\r\n\r\n")
    assert reply.status in (400, 401, 403), reply.raw
    assert b'"kind": "Status"' in reply.body
    assert not echo.heads


TARGETS = [
    "http://evil/k8s/clusters/prod/api", "/k8s/clusters/prod/../other/api", "/k8s/clusters/prod/%2e%2e/x", "/k8s/clusters/prod/.%2E/x",
    "/k8s/clusters/prod//api", "/k8s/clusters//api", "/k8s/clusters/PROD/api", "/k8s/clusters/prod%2fapi", "/k8s/clusters/prod/..%2fx",
    "/k8s/clusters/prod/api/..", "/k8s/clusters/prod/api/..;/x", "/k8s/clusters/prod\\api", "/k8s/clusters/prod/a%2f../b",
    "/k8s/clusters/prod/api#x", "/k8s/clusters/pr od/api", "/k8s/clusters/.%2e/api", "*", "prod:443",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
async def test_target_that_reads_in_two_ways_is_refused(door, echo, target):
    token = await door.member()
    async with door.agent("prod", echo.address):
        reply = await door.get(target, token)
    assert reply.status == 400, reply.raw
    assert not echo.heads


async def test_identity_is_exact_whatever_harmless_headers_come(door, echo):
    token = await door.member()
    lines = [
        "User-Agent: x",
        "X-Custom: 1",
        "Keep-Alive: 5",
        "Proxy-Connection: keep-alive",
        "TE: trailers",
        "Via: 1.1 x",
        "Origin: https://evil",
    ]
    async with door.agent("prod", echo.address):
        assert (await door.get(PATH, token, *lines)).status == 200
    seen = echo.heads[0].decode()
    assert re.findall(r"(?im)^impersonate-(?:user|group|uid): (\S+)", seen) == [
        "herdsman:ada", door.uids["user/ada"], "herdsman:cluster:prod:cluster-owner"
    ]  # fmt: skip
    for absent in ("X-Custom", "Keep-Alive", "Proxy-", "TE:", "Via", "Origin"):
        assert absent not in seen


async def test_failed_upgrade_leaves_no_privileged_connection(door, echo):
    """CVE-2018-1002105, through door and agent."""
    token = await door.member()
    echo.reply = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"
    second = f"GET {PATH} HTTP/1.1\r\nHost: h\r\n\r\n"
    async with door.agent("prod", echo.address):
        reply = await door.talk(
            f"POST {PATH}/exec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            f"Authorization: Bearer {token}\r\n\r\n{second}".encode()
        )
    assert reply.status == 404
    assert reply.raw.count(b"HTTP/1.1 ") == 1
    assert len(echo.heads) == 1


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (b"https://evil.example/x", 502), (b"//evil.example/x", 502), (b"http:evil", 502), (b"/\\evil", 502),
        (b"/api/v1/x", b"Location: /k8s/clusters/prod/api/v1/x\r\n"), (b"x", b"Location: x\r\n"),
    ],
)  # fmt: skip
async def test_redirects_are_never_followed_and_stay_inside(door, echo, location, expected):
    """CVE-2022-3172, CVE-2020-8559."""
    token = await door.member()
    echo.reply = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % location
    async with door.agent("prod", echo.address):
        reply = await door.get(PATH, token)
    assert len(echo.heads) == 1
    if isinstance(expected, int):
        assert reply.status == expected
    else:
        assert reply.status == 302
        assert expected in reply.head + b"\r\n"


async def test_cluster_cannot_speak_in_the_hubs_name(door, echo):
    token = await door.member()
    echo.reply = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nAccess-Control-Allow-Origin: *\r\nContent-Security-Policy: x\r\nWarning: 299 - w\r\nContent-Length: 0\r\n\r\n"
    async with door.agent("prod", echo.address):
        reply = await door.get(PATH, token)
    assert b"Set-Cookie" not in reply.head
    assert b"Access-Control" not in reply.head
    assert reply.head.count(b"Content-Security-Policy") == 1
    assert b"Warning: 299 - w" in reply.head


async def test_websocket_bearer_subprotocol_is_taken_as_token_and_removed(door, echo):
    import base64

    token = await door.member()
    coded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    echo.reply = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    async with door.agent("prod", echo.address):
        await door.talk(
            f"GET {PATH} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Protocol: v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{coded}\r\n\r\n".encode()
        )
    assert b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n" in echo.heads[0]
    assert b"herdsman:ada" in echo.heads[0]
