"""What goes to the gateway and to the bus, with which headers, and the door's own health."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from libs.common.resources.identity import Token
from tests.auth_proxy.conftest import Echo
from tests.auth_proxy.door import open_door


@pytest.fixture
async def gateway(door):
    made = Echo()
    server = await asyncio.start_unix_server(made.serve, str(door.host.config.gateway_socket))
    yield made
    server.close()


async def test_caller_arrives_as_a_signed_envelope_and_the_token_stays_outside(door, gateway):
    token = await door.member()
    reply = await door.get(
        "/apis/management.herdsman.dev/v1/clusters", token, "Cookie: a=b", "X-Forwarded-For: 6.6.6.6"
    )
    seen = json.loads(reply.body)["head"]
    envelope = seen.partition("Herdsman-Identity: ")[2].split("\r\n")[0]
    principal = door.host.verifier.open(envelope)
    assert (principal.user, principal.user_uid) == ("ada", door.uids["user/ada"])
    assert token not in seen
    assert "Authorization" not in seen
    assert "Cookie: a=b" in seen
    assert "Host: hub\r\n" in seen
    assert "X-Forwarded-For: 127.0.0.1\r\n" in seen
    assert "6.6.6.6" not in seen


async def test_no_token_passes_without_envelope_and_a_bad_one_is_refused_here(door, gateway):
    assert b"Herdsman-Identity" not in (await door.get("/v1/login", method="POST", body=b"{}")).body
    assert (await door.get("/v1/login", "hm_a_b")).status == 401
    assert len(gateway.heads) == 1


@pytest.mark.parametrize(
    "line",
    [
        "Herdsman-Identity: a.b",
        "herdsman-identity: a.b",
        "Herdsman_Identity: a.b",
        "X-Remote-User: a",
        "Impersonate-User: a",
    ],
)
async def test_forged_identity_never_reaches_the_gateway(door, gateway, line):
    assert (await door.get("/apis", "", line)).status in (400, 403)
    assert not gateway.heads


async def test_revoked_token_cuts_a_watch_on_the_hub(door, gateway):
    token = await door.member()
    reader, writer = await door.connect()
    writer.write(f"GET /apis/x?watch=true HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"event\r\n"), 5)
    await door.user("ada", enabled=False)
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 1)
    writer.close()


async def test_a_change_that_the_gateway_has_is_answered_although_its_token_is_revoked_meanwhile(door, gateway):
    token = await door.member()
    name = token.split("_")[1]
    signing_out = asyncio.create_task(door.get("/slow", token, method="POST", body=b""))
    _, half = await door.connect()
    half.write(
        f"POST /slow/half HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nContent-Length: 9\r\n\r\nhalf".encode()
    )
    for _ in range(200):
        if len(gateway.heads) == 2:
            break
        await asyncio.sleep(0.01)
    await door.remove(Token, name)
    assert (await signing_out).status == 200
    assert (await door.get("/slow", token, method="POST", body=b"")).status == 401
    half.close()
    refused = [e for e in await door.events(3) if e["requestURI"] == "/slow/half"]
    assert [e["responseStatus"]["code"] for e in refused] == [401]


async def test_absent_gateway_is_503_with_a_sentence(door):
    reply = await door.get("/apis")
    assert reply.status == 503
    assert "the gateway cannot be reached" in reply.message


async def test_health_is_the_doors_and_readiness_is_everybodys(door, gateway):
    assert (await door.get("/healthz")).body == b"ok"
    gateway.reply = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\nidentity"
    reply = await door.get("/readyz?verbose")
    assert (reply.status, reply.body) == (503, b"identity")
    gateway.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert (await door.get("/readyz")).status == 200
    door.host.bus.disconnect()
    reply = await door.get("/readyz")
    assert reply.status == 503
    assert b"waits for: bus" in reply.body


async def test_bus_is_spliced_for_websockets_only(tmp_path: Path):
    heads = []

    async def nats(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nINFO"
        )
        writer.write(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(nats, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with open_door(tmp_path, nats_ws_address=f"127.0.0.1:{port}") as door:
        reply = await door.get("/nats")
        assert reply.status == 400
        reader, writer = await door.connect()
        writer.write(
            b"GET /nats HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n"
            b"Sec-WebSocket-Version: 13\r\nAuthorization: Bearer hm_x_y\r\nCookie: c\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head
        assert b"Sec-WebSocket-Accept: x" in head
        assert await reader.readexactly(4) == b"INFO"
        writer.write(b"CONNECT")
        assert await reader.readexactly(7) == b"CONNECT"
        writer.close()
    server.close()
    assert b"Authorization" not in heads[0]
    assert b"Cookie" not in heads[0]


async def test_certificate_is_read_again_on_sighup(door, gateway):
    import os
    import signal

    from tests.auth_proxy.door import make_pki

    make_pki(door.ca_file.parent)
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.05)
    # The new certificate is its own CA and lies where the client looks for it.
    assert (await door.get("/healthz")).status == 200
    (door.ca_file.parent / "tls.key").write_text("broken")
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.05)
    assert (await door.get("/healthz")).status == 200
