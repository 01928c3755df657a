"""A token that the front door has not seen: the request waits for one read, in all its forms, and is then as any other."""

from __future__ import annotations

import asyncio
import base64
import json

from libs.common import errors
from libs.common.resources.identity import Token
from tests.auth_proxy.test_known_blocks import PATH, name_of


def hold_reads(door, monkeypatch) -> asyncio.Event:
    """Reads of tokens wait for what is returned."""
    release = asyncio.Event()
    store = door.stores["identity"]
    read = store.get

    async def get(key: str):
        await release.wait()
        return await read(key)

    monkeypatch.setattr(store, "get", get)
    return release


async def test_what_is_sent_while_the_token_is_read_is_kept_in_order(door, echo, monkeypatch):
    token = await door.member()
    async with door.agent("prod", echo.address):
        release = hold_reads(door, monkeypatch)
        reader, writer = await door.connect()
        line = f"Authorization: Bearer {token}\r\n"
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: h\r\n{line}Content-Length: 5\r\n\r\nhe".encode())
        await asyncio.sleep(0.05)
        writer.write(f"lloGET {PATH}/second HTTP/1.1\r\nHost: h\r\n{line}Connection: close\r\n\r\n".encode())
        await asyncio.sleep(0.05)
        release.set()
        async with asyncio.timeout(10):
            raw = await reader.read()
        writer.close()
        assert raw.count(b"HTTP/1.1 200 OK") == 2
        assert raw.index(b"POST /api/v1/pods") < raw.index(b"/second")


async def test_a_websocket_with_its_token_in_a_subprotocol_waits_too(door, echo):
    token = await door.member()
    hidden = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
    async with door.agent("prod", echo.address):
        reply = await door.talk(
            f"GET {PATH}/x/exec?command=sh HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
            f"Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{hidden}, v4.channel.k8s.io\r\n\r\n".encode()
        )
        # The echo does not switch: that it was asked, as ada and without the token, is the point.
        head = json.loads(reply.body)["head"]
        assert "Impersonate-User: herdsman:ada" in head
        assert hidden not in head


async def test_a_client_that_goes_away_while_its_token_is_read_leaves_nothing(door, echo, monkeypatch):
    token = await door.member()
    release = hold_reads(door, monkeypatch)
    _, writer = await door.connect()
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.sleep(0.05)
    release.set()
    async with door.agent("prod", echo.address):
        assert (await door.get(PATH, token)).status == 200
    assert len(echo.heads) == 1


async def test_a_store_that_does_not_answer_is_503_and_the_connection_goes_on(door, echo, monkeypatch):
    token = await door.member()

    async def get(key: str):
        raise errors.Unavailable("the store does not answer")

    async with door.agent("prod", echo.address):
        with monkeypatch.context() as patch:
            patch.setattr(door.stores["identity"], "get", get)
            assert (await door.get(PATH, token)).status == 503
        assert (await door.get(PATH, token)).status == 200


async def test_a_token_is_refused_when_the_one_it_was_made_with_is_gone_and_its_streams_are_cut(door, echo):
    token = await door.member()
    person = await door.user("ada")
    child = await door.token(person, "child", parent=name_of(token))
    orphan = await door.token(person, "orphan", parent="never-there")
    stranger = await door.token(await door.user("eve"), "stranger", parent=name_of(token))
    async with door.agent("prod", echo.address):
        assert (await door.get(PATH, child)).status == 200
        assert (await door.get(PATH, orphan)).status == 401
        assert (await door.get(PATH, stranger)).status == 401
        reader, writer = await door.connect()
        writer.write(f"GET {PATH}?watch=true HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {child}\r\n\r\n".encode())
        await reader.readuntil(b"event\r\n")
        await door.remove(Token, name_of(token))
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        assert (await door.get(PATH, child)).status == 401


async def test_what_was_revoked_while_the_watch_was_interrupted_is_refused_and_its_streams_are_cut(door, echo):
    token = await door.member()
    async with door.agent("prod", echo.address):
        reader, writer = await door.connect()
        writer.write(f"GET {PATH}?watch=true HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        await reader.readuntil(b"event\r\n")
        store = door.stores["identity"]
        entry = await store.get(f"tokens.{name_of(token)}")
        store.interrupt()
        await store.delete(entry.key, entry.value, entry.revision)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        assert (await door.get(PATH, token)).status == 401


async def test_a_flood_of_made_up_names_does_not_stop_who_is_known(door, echo):
    token = await door.member()
    async with door.agent("prod", echo.address):
        assert (await door.get(PATH, token)).status == 200
        made_up = [door.get(PATH, f"hm_madeup{number}_secret") for number in range(50)]
        replies = await asyncio.gather(*made_up, door.get(PATH, token))
        assert {reply.status for reply in replies[:-1]} == {401}
        assert replies[-1].status == 200


async def test_a_token_ends_with_the_one_it_was_made_with(door, echo):
    await door.member()
    person = await door.user("ada")
    parent = await door.token(person, "parent", ttl_s=1.5)
    child = await door.token(person, "child", parent=name_of(parent))
    async with door.agent("prod", echo.address):
        assert (await door.get(PATH, child)).status == 200
        await asyncio.sleep(1.6)
        assert (await door.get(PATH, child)).status == 401
