"""Checks of the smaller readers of strangers' bytes: bodies, targets, credentials, the guard, both halves of the handshake."""

from __future__ import annotations

import asyncio
import base64
import random
import re
import time
from urllib.parse import unquote_to_bytes

from libs.common import errors
from libs.common.access.browser_session import COOKIE
from libs.common.audit.event import mask_uri
from libs.common.audit.request import parse_request as parse_info
from libs.common.relay import guard
from libs.common.relay.framing import Chunked
from libs.common.relay.handshake import PLAIN, Handshake, TunnelIdentity, ask_for_switch, prove
from libs.common.relay.head import RequestHead, parse_request
from libs.common.relay.outbound import Hub
from services.auth_proxy.cluster_route import PREFIX, is_long, split_target
from services.auth_proxy.credential import find_credential, is_from_our_page, take_session
from services.auth_proxy.doorstep import is_genuine
from tests.relay.fuzz.heads import SLOW_S
from tests.relay.fuzz.mutate import tear
from tests.relay.fuzz.streams import Wire, read_requests

SUBPROTOCOL = b"base64url.bearer.authorization.k8s.io."


def check_chunked(data: bytes, source: random.Random) -> None:
    """A body ends where h11 says, however it is torn, or is refused."""
    body, used = Chunked(), 0
    try:
        for piece in tear(data, source):
            taken = body.scan(piece)
            used += taken
            assert taken == len(piece) or body.done
            if body.done:
                break
    except errors.BadRequest:
        return
    if body.done:
        stream = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data[:used]
        found, broken = read_requests(stream)
        assert len(found) == 1, "h11 refuses what we accept"
        assert not broken
        early, _ = read_requests(stream[:-1])
        assert not early, "the body ends later than for h11"


def check_target(target: bytes) -> None:
    """What passes names one cluster, and no decoding makes it leave that cluster."""
    try:
        name, inside = split_target(PREFIX + target)
    except errors.BadRequest:
        return
    assert re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)
    assert PREFIX + target == PREFIX + name.encode() + inside
    path = inside.partition(b"?")[0]
    for seen in (path, unquote_to_bytes(path), unquote_to_bytes(path).replace(b"\\", b"/")):
        segments = re.split(rb"[/]", seen)
        assert b".." not in [segment.partition(b";")[0] for segment in segments]
        assert b"." not in segments
    assert path.startswith(b"/")
    assert not path.startswith(b"//")


def check_notes(head: RequestHead) -> None:
    """What is written down about any accepted head is text without lines, and short where a person chose it."""
    began = time.monotonic()
    info = parse_info(head.method.decode("ascii"), head.target.decode("latin-1"), upgrade=bool(head.upgrade))
    assert info.verb.isascii() or info.verb in ("watch", "proxy")
    is_long(info)
    path = mask_uri(head.target)
    assert "\n" not in path
    assert not re.search(r"\bhm_[A-Za-z0-9]+_[^/.*]+", path), "a token is written down"
    assert time.monotonic() - began < SLOW_S


def check_guard(head: RequestHead) -> None:
    """What the guard lets through names one user of the hub, and no group but its own."""
    try:
        lines = guard.check(head)
    except errors.Denied:
        return
    users = [line for line in lines if line.lower().startswith(b"impersonate-user:")]
    assert len(users) == 1
    assert users[0].partition(b":")[2].strip().startswith(b"herdsman:")
    for lower, value, _ in head.fields:
        assert lower not in (b"authorization", b"cookie")
        if lower == b"impersonate-group":
            assert value.startswith(b"herdsman:") or value == b"system:authenticated"
    assert sum(lower.startswith(b"impersonate-") for lower, _, _ in head.fields) == len(lines)


def check_credential(parts: list[bytes]) -> None:
    """Of any list of subprotocols at most one is a token; it is taken out, and nothing of it stays in the head."""
    raw = (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: "
        + b", ".join(parts)
        + b"\r\n\r\n"
    )
    try:
        head = parse_request(raw)
        found = find_credential(head)
    except (errors.BadRequest, errors.Unauthenticated):
        return
    left = [value for part in head.values(b"sec-websocket-protocol") for value in part.split(b",")]
    offered = [value for part in parts for value in part.split(b",") if value.strip(b" \t").startswith(SUBPROTOCOL)]
    if found is None:
        assert not offered
    else:
        assert len(offered) == 1
        coded = offered[0].strip(b" \t")[len(SUBPROTOCOL) :]
        assert found == base64.urlsafe_b64decode(coded + b"=" * (-len(coded) % 4))
    assert not [value for value in left if value.strip(b" \t").startswith(SUBPROTOCOL)]


def check_cookie(parts: list[bytes], lines: list[bytes]) -> None:
    """Of any cookies at most one is a session; none of it stays in the head. Without our proof no change is let through."""
    pairs = b"".join(b"Cookie: " + part + b"\r\n" for part in parts)
    raw = (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n"
        + pairs
        + b"".join(line + b"\r\n" for line in lines)
        + b"\r\n"
    )
    try:
        head = parse_request(raw)
        found = take_session(head)
    except (errors.BadRequest, errors.Unauthenticated):
        return
    name = COOKIE.encode()
    sent = [pair.strip(b" ") for part in parts for pair in part.strip(b" \t").split(b";")]
    assert (found is not None) == any(pair.partition(b"=")[0] == name for pair in sent)
    left = [pair.strip(b" ") for value in head.values(b"cookie") for pair in value.split(b";")]
    assert not [pair for pair in left if pair.partition(b"=")[0] == name], "the session stays in the head"
    try:
        proved = is_from_our_page(head, found or b"hm_a_b")
    except errors.Denied:
        return
    assert not proved, "a change without the proof"


async def check_handshake(answer: bytes, source: random.Random) -> None:
    """Whatever a hub answers: the agent has a tunnel, or a sentence; it never falls and never waits for ever."""
    connection = Handshake()
    wire = Wire()
    connection.connection_made(wire)
    identity = TunnelIdentity("uid", "UKEY", lambda data: data[:64], "0" * 16)

    async def shake_hands() -> None:
        await ask_for_switch(connection, Hub("https://hub.example"), PLAIN)
        await prove(connection, identity)

    task = asyncio.ensure_future(shake_hands())
    await asyncio.sleep(0)
    for piece in tear(answer, source):
        connection.data_received(piece)
        await asyncio.sleep(0)
    connection.connection_lost(None)
    try:
        async with asyncio.timeout(5):
            await task
    except errors.HerdsmanError as exc:
        assert exc.message  # noqa: PT017 - every refusal says why


def check_signature(key: str, signature: bytes) -> None:
    """No bytes are a signature by chance, and none is an exception."""
    assert not is_genuine(key, signature, b"something else")
