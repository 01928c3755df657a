"""Failed switches of protocol: no connection with rights is left, and bytes that were sent ahead never reach the cluster."""

from __future__ import annotations

import asyncio

import pytest

from tests.auth_proxy.recorder import OK, PATH, UPGRADES

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"
ANSWERS = {
    "200": OK,
    "200 until the connection closes": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "200 chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "200 that names an upgrade": b"HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nok",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "302": b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    "307 elsewhere": b"HTTP/1.1 307 Temporary Redirect\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n",
    "400": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno",
    "403": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
    "426": b"HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
    "500": b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno",
    "101 to another protocol": SWITCH % b"h2c",
    "101 without a protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
    "101 without Connection": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "101 to two protocols": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: SPDY/3.1\r\n\r\n",
    "garbage": b"\x00\x01\x02\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("protocol", UPGRADES)
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_cve_2018_1002105_failed_upgrade_leaves_no_privileged_connection(scene, protocol, answer, method):
    scene.upstream.reply = ANSWERS[answer]
    scene.upstream.hang_up = "until" in answer
    ahead = f"GET {PATH}/second HTTP/1.1\r\nHost: h\r\nImpersonate-User: system:admin\r\n\r\n".encode()
    reader, writer = await scene.door.connect()
    head = [f"{method} {PATH}/exec HTTP/1.1", "Host: h", f"Authorization: Bearer {scene.token}", *UPGRADES[protocol]]
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + ahead)
    async with asyncio.timeout(5):
        raw = await reader.read()
    writer.write(ahead)
    writer.close()
    assert raw.startswith(b"HTTP/1.1 ")
    assert not raw.startswith(b"HTTP/1.1 101")
    assert raw.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in raw
    (head_seen,) = scene.upstream.heads
    assert head_seen.startswith(f"{method} /api/v1/secrets/exec HTTP/1.1\r\n".encode())
    assert b"/second" not in b"".join(scene.upstream.connections)


@pytest.mark.parametrize("protocol", ["websocket", "SPDY/3.1", "h2c"])
async def test_cve_2018_1002105_switch_that_nobody_asked_for_is_502(scene, protocol):
    scene.upstream.reply = SWITCH % protocol.encode() + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    reply = await scene.say([])
    assert reply.status == 502
    assert b"evil" not in reply.raw
    again = await scene.say([])
    assert again.status == 502


@pytest.mark.parametrize(
    "lines",
    [
        ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x"], ["Connection: Upgrade", "Upgrade: h2c"],
        ["Connection: Upgrade", "Upgrade: raw"], ["Connection: Upgrade", "Upgrade: websocket", "Upgrade: SPDY/3.1"], ["Connection: Upgrade", "Upgrade:"],
        ["Connection: Upgrade", "Upgrade: websocket, SPDY/3.1"], ["Connection: Upgrade", "Upgrade: herdsman-tunnel/2"], ["Connection: Upgrade"],
        ["Connection: Upgrade", "Upgrade: TLS/1.0"], ["Connection: Upgrade", "Upgrade: websocket;x"], ["Connection: upgrade", "Upgrade: SPDY/3.0"],
    ],
)  # fmt: skip
async def test_cve_2018_1002105_protocols_that_are_not_known_are_refused(scene, lines):
    reply = await scene.say(lines)
    assert reply.status == 400
    assert not scene.upstream.heads


@pytest.mark.parametrize("protocol", ["h2", "raw"])
async def test_cve_2018_1002105_upgrade_header_alone_switches_nothing(scene, protocol):
    reply = await scene.say([f"Upgrade: {protocol}"])
    assert reply.status == 200
    assert b"upgrade" not in scene.upstream.heads[0].lower()


@pytest.mark.parametrize("protocol", UPGRADES)
async def test_cve_2018_1002105_spliced_connection_is_never_used_for_another_request(scene, protocol):
    """After its end both sides are gone; the next request takes another connection."""
    name = UPGRADES[protocol][1].partition(": ")[2]
    scene.upstream.reply = SWITCH % name.encode() + b"hello"
    reader, writer = await scene.door.connect()
    head = [f"GET {PATH}/exec HTTP/1.1", "Host: h", f"Authorization: Bearer {scene.token}", *UPGRADES[protocol]]
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
    async with asyncio.timeout(5):
        await reader.readuntil(b"hello")
    writer.write(b"GET /raw HTTP/1.1\r\n")
    writer.close()
    scene.upstream.reply = OK
    assert (await scene.say([])).status == 200
    spliced, *others = [bytes(seen) for seen in scene.upstream.connections]
    assert spliced.endswith(b"\r\n\r\nGET /raw HTTP/1.1\r\n") or b"/raw" not in spliced
    assert all(b"/raw" not in seen for seen in others)
    assert len(others) == 1
