"""Two front-door processes of one hub in this process: a cluster that is connected to one is served by the other, by one hop."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from libs.common.relay import impersonation
from libs.common.relay.head import parse_request
from libs.common.relay.pool import Address
from services.auth_proxy.holders import Holder, decode, encode
from services.auth_proxy.hop import NAME, render_identity
from tests.auth_proxy.door import Door, make_hop_pki, open_door
from tests.auth_proxy.judge import listening
from tests.auth_proxy.test_namespace_calls import Cluster, member

IMPERSONATED = b"Impersonate-User: herdsman:ada\r\n"


def told(door: Door) -> dict[str, Holder]:
    """What processes say of themselves now."""
    entries = door.stores["tunnels"]._last.values()
    return {entry.key: decode(entry.value) for entry in entries if not entry.deleted}


async def eventually(check: Callable[[], object]) -> None:
    for _ in range(500):
        if check():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true within five seconds")


@contextlib.asynccontextmanager
async def opened(folder: Path, first: Door | None = None, **settings: object) -> AsyncIterator[tuple[Door, Holder]]:
    """A front door, another process of `first`'s hub, and what it says of itself."""
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    before = set(told(first)) if first else set()
    async with open_door(folder, first.stores if first else None, **settings) as door:
        if first is not None:
            door.keys, door.uids = first.keys, first.uids
        await eventually(lambda: set(told(door)) - before)
        yield door, told(door)[(set(told(door)) - before).pop()]


@pytest.fixture
async def pair(tmp_path) -> AsyncIterator[tuple[Door, Door]]:
    hop_dir = tmp_path / "hop"
    hop_dir.mkdir()
    settings = {"hop_dir": hop_dir, "tunnel_wait_s": 1.0}
    async with (
        opened(tmp_path / "near", **settings) as (near, _),
        opened(tmp_path / "far", near, **settings) as (far, holder),
    ):
        SOCKETS[far.port] = Path(holder.unix)
        yield near, far


SOCKETS: dict[int, Path] = {}


async def audited(door: Door) -> list[dict]:
    """Everything written down so far, once the queue is empty."""
    await asyncio.sleep(0.7)
    return await door.events(0)


async def lie(door: Door, cluster: str, **facts: object) -> None:
    """An entry that says of a process what is not so."""
    fake = Holder("fake", clusters={door.uids[f"cluster/{cluster}"]: 1}, load=-1, **facts)
    await door.stores["tunnels"].create(fake.key, encode(fake, 1), ttl_s=60)
    await door.settle("tunnels", "")


async def test_cluster_of_the_other_process_is_reached_with_the_same_head_as_an_own_one(pair, echo):
    near, far = pair
    token = await near.member()
    async with far.agent("prod", echo.address):
        own = await far.get("/k8s/clusters/prod/api?x=%2F", token, "Accept: application/json")
        hopped = await near.get("/k8s/clusters/prod/api?x=%2F", token, "Accept: application/json")
    assert (own.status, hopped.status) == (200, 200)
    assert echo.heads[0] == echo.heads[1]
    assert IMPERSONATED in echo.heads[1]
    assert b"herdsman-hop" not in echo.heads[1].lower()


async def test_bodies_kept_connections_and_upgrades_pass_the_hop(pair, echo):
    near, far = pair
    token = await near.member()
    async with far.agent("prod", echo.address):
        reader, writer = await near.connect()
        for _ in range(3):
            writer.write(
                f"POST /k8s/clusters/prod/api HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {token}\r\n"
                "Content-Length: 0\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(size)
        writer.write(
            f"POST /k8s/clusters/prod/exec HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {token}\r\n"
            "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n".encode()
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.write(b"x" * 300_000)
        assert await reader.readexactly(300_000) == b"x" * 300_000
        writer.close()
    assert all(IMPERSONATED in head for head in echo.heads)


def test_a_wish_to_be_somebody_else_passes_the_hop_unchanged():
    lines = impersonation.render(
        impersonation.Wish("jane", ("developers", "testers"), "u-1", (("scopes", "a,b"), ("scopes", "c"))),
        impersonation.FROM_HUB,
    )
    identity = IMPERSONATED + b"Impersonate-Group: herdsman:x\r\n" + b"".join(line + b"\r\n" for line in lines)
    head = parse_request(b"GET /api HTTP/1.1\r\nHost: x\r\nHerdsman-Hop: uid\r\n" + identity + b"\r\n")
    assert render_identity(head) == identity


async def test_a_call_over_the_hop_is_written_down_once_where_it_came_in(pair, echo):
    near, far = pair
    token = await near.member()
    async with far.agent("prod", echo.address):
        assert (await near.get("/k8s/clusters/prod/api", token)).status == 200
    assert [(r["requestURI"], r["user"]["username"]) for r in await audited(near)] == [
        ("/k8s/clusters/prod/api", "ada")
    ]
    assert await audited(far) == []


async def test_a_watch_over_the_hop_ends_at_the_api_server_when_its_client_goes(pair, echo):
    near, far = pair
    token = await near.member()
    async with far.agent("prod", echo.address) as agent:
        reader, writer = await near.connect()
        writer.write(
            f"GET /k8s/clusters/prod/api?watch=true HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        await reader.readuntil(b"event")
        assert agent.serving == 1
        writer.transport.abort()
        await eventually(lambda: not agent.serving)


async def test_a_process_that_has_no_connection_after_all_says_so_and_the_request_goes_elsewhere(pair, echo, tmp_path):
    near, far = pair
    token = await near.member()
    async with (
        opened(tmp_path / "third", near, hop_dir=near.host.config.hop_dir) as (_, third),
        far.agent("prod", echo.address),
    ):
        await lie(near, "prod", unix=third.unix)
        reply = await near.get("/k8s/clusters/prod/api", token, method="POST", body=b'{"kind": "Pod"}')
        assert reply.status == 200
        assert (await near.get("/k8s/clusters/prod/api", token)).status == 200
    # The server of this test takes a body for the beginning of the next head: so it is seen to have come once.
    first, second = echo.heads
    assert first.startswith(b"POST /api ")
    assert second.startswith(b'{"kind": "Pod"}GET /api ')


async def test_a_question_of_the_hubs_own_goes_elsewhere_then_too(pair, tmp_path):
    near, far = pair
    token = await member(near)
    cluster = Cluster(allowed=True)
    cluster.release.set()
    async with (
        opened(tmp_path / "third", near, hop_dir=near.host.config.hop_dir) as (_, third),
        listening(cluster.serve) as port,
        far.agent("prod", lambda: Address("the API server", "127.0.0.1", port)),
    ):
        await lie(near, "prod", unix=third.unix)
        assert (await near.get("/k8s/clusters/prod/api/v1/namespaces", token)).status == 200
    assert cluster.asked.is_set()


async def test_a_process_that_is_gone_is_skipped_at_once(pair, echo):
    near, far = pair
    token = await near.member()
    async with far.agent("prod", echo.address):
        await lie(near, "prod", unix=str(near.host.config.hop_dir / "h-gone.sock"))
        began = asyncio.get_running_loop().time()
        assert (await near.get("/k8s/clusters/prod/api", token)).status == 200
        assert asyncio.get_running_loop().time() - began < 0.9


async def test_a_cluster_that_is_nowhere_is_503_with_a_reason_and_never_goes_round_in_circles(pair, echo):
    near, far = pair
    token = await near.member()
    await lie(near, "prod", unix=str(SOCKETS[far.port]))
    reply = await near.get("/k8s/clusters/prod/api", token)
    assert reply.status == 503
    assert 'cluster "prod" is not connected' in reply.message
    assert b"Herdsman-Not-Here" not in reply.head
    assert echo.heads == []


async def test_a_request_waits_for_a_cluster_that_comes_to_the_other_process(pair, echo):
    near, far = pair
    token = await near.member()
    waiting = asyncio.create_task(near.get("/k8s/clusters/prod/api", token))
    await asyncio.sleep(0.1)
    async with far.agent("prod", echo.address):
        assert (await waiting).status == 200


async def test_a_cluster_that_left_is_absent_since_then(pair, echo):
    near, far = pair
    token = await near.member()
    async with far.agent("prod", echo.address):
        assert (await near.get("/k8s/clusters/prod/api", token)).status == 200
    reply = await near.get("/k8s/clusters/prod/api", token)
    assert reply.status == 503
    assert f"is not connected since {dt.datetime.now(dt.UTC):%Y-%m-%dT}" in reply.message


@pytest.mark.parametrize(
    "path",
    ["/k8s/clusters/prod/api", "/api", "/", "/apis/management.herdsman.dev/v1/clusters", "/agent/v1/connect", "/nats"],
)
@pytest.mark.parametrize("with_token", [False, True])
async def test_nothing_public_reaches_the_hop(pair, echo, path, with_token):
    near, far = pair
    token = await near.member()
    uid = near.uids["cluster/prod"]
    async with far.agent("prod", echo.address), near.agent("prod", echo.address):
        reply = await near.get(
            path, token if with_token else "", f"Herdsman-Hop: {uid}", "Impersonate-User: herdsman:root"
        )
    assert reply.status in (400, 401, 403, 404)
    assert echo.heads == []


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((), 400),
        (("Herdsman-Hop: UID",), 403),
        (("Herdsman-Hop: UID", "Herdsman-Hop: UID", "Impersonate-User: herdsman:ada"), 400),
        (("Herdsman-Hop: UID", "Impersonate-User: admin"), 403),
        (("Herdsman-Hop: UID", "Impersonate-User: herdsman:ada", "Impersonate-Group: system:masters"), 403),
        (("Herdsman-Hop: UID", "Impersonate-User: herdsman:ada", "Authorization: Bearer x"), 403),
        (("Herdsman-Hop: other", "Impersonate-User: herdsman:ada"), 503),
        (("Herdsman-Hop: UID", "Impersonate-User: herdsman:ada"), 200),
    ],
)
async def test_the_hop_checks_what_it_is_given_again(pair, echo, lines, status):
    near, far = pair
    await near.member()
    async with far.agent("prod", echo.address):
        head = ["GET /readyz HTTP/1.1", "Host: x", "Connection: close", *lines]
        reader, writer = await asyncio.open_unix_connection(str(SOCKETS[far.port]))
        writer.write("\r\n".join(head).replace("UID", near.uids["cluster/prod"]).encode() + b"\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert int(answer.split(b" ")[1]) == status, answer
    assert len(echo.heads) == (status == 200)


async def test_the_sockets_are_private_and_those_of_the_dead_are_cleared_away(pair, tmp_path):
    near, _ = pair
    folder = near.host.config.hop_dir
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "h-dead.sock"))
    async with opened(tmp_path / "third", near, hop_dir=folder):
        assert len(list(folder.iterdir())) == 3
    assert len(list(folder.iterdir())) == 2


# between machines


async def test_between_machines_the_hop_is_mutual_tls(tmp_path, echo):
    settings = {**make_hop_pki(tmp_path), "hop_listen": "127.0.0.1:0", "tunnel_wait_s": 1.0}
    async with (
        opened(tmp_path / "near", **settings) as (near, _),
        opened(tmp_path / "far", near, **settings) as (far, _),
    ):
        token = await near.member()
        async with far.agent("prod", echo.address):
            for _ in range(2):
                assert (await near.get("/k8s/clusters/prod/api", token)).status == 200
    assert len(echo.heads) == 2


async def test_processes_of_one_machine_take_the_ports_from_the_first_on(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {**make_hop_pki(tmp_path), "hop_listen": f"127.0.0.1:{port}", "hop_host": "localhost"}
        async with opened(tmp_path / "door", **settings) as (_, holder):
            host, _, told = holder.address.rpartition(":")
            assert host == "localhost"
            assert port < int(told) < port + 32


@pytest.mark.parametrize("certificate", ["none", "another name", "another authority"])
async def test_whoever_has_no_certificate_of_a_front_door_is_not_heard(tmp_path, echo, certificate):
    settings = {**make_hop_pki(tmp_path), "hop_listen": "127.0.0.1:0"}
    async with opened(tmp_path / "door", **settings) as (door, holder):
        await door.member()
        async with door.agent("prod", echo.address):
            host, _, port = holder.address.rpartition(":")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cafile=settings["hop_ca"])
            if certificate != "none":
                other = tmp_path
                if certificate == "another authority":
                    other = tmp_path / "other"
                    other.mkdir()
                made = make_hop_pki(other, "gateway.herdsman.internal")
                context.load_cert_chain(made["hop_certificate"], made["hop_key"])
            with contextlib.suppress(OSError, ssl.SSLError):
                reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=NAME)
                writer.write(
                    f"GET /api HTTP/1.1\r\nHost: x\r\nHerdsman-Hop: {door.uids['cluster/prod']}\r\n"
                    "Impersonate-User: herdsman:ada\r\n\r\n".encode()
                )
                assert await reader.read() == b""
    assert echo.heads == []
