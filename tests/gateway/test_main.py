"""The wiring: what `build` makes of a host, on the real informers and the real socket."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from libs.common.apiserver.sizes import max_object_bytes
from libs.common.bus.memory import MemoryBus
from libs.common.bus.server import MAX_PAYLOAD_BYTES, ServerSettings, render_config
from libs.common.crypto.envelope import HEADER
from libs.common.resources import codec
from libs.common.resources.registry import BY_MODEL, RESOURCE_TYPES
from libs.common.runtime.host import Host
from libs.common.store.memory import MemoryStore
from services.gateway.bodies import MAX_BYTES
from services.gateway.config import GatewayConfig
from services.gateway.main import build
from tests.apiserver.support import ADMIN_ROLE, Keys, make_binding, make_principal, make_user
from tests.gateway.support import OURS


def make_config(tmp_path, **more):
    given = {
        "nats_url": ["nats://unused"],
        "identity_public_key": tmp_path / "unused.pem",
        "public_url": "https://hub.example",
    }
    return GatewayConfig.model_validate(given | more)


@pytest.mark.parametrize("kind", ["socket", "listen"])
async def test_build_opens_the_door_with_everything_behind_it(tmp_path, kind):
    stores: dict[str, MemoryStore] = {}
    keys = Keys(Host.now)

    def open_store(bucket):
        return stores.setdefault(bucket, MemoryStore(bucket))

    (tmp_path / "gateway.sock").write_text("left by a killed process")
    where = (
        {"socket": tmp_path / "gateway.sock"}
        if kind == "socket"
        else {"listen": "127.0.0.1:0", "listen_file": tmp_path / "address"}
    )
    (tmp_path / "ca.pem").write_text("CA")
    config = make_config(tmp_path, public_ca_file=tmp_path / "ca.pem", **where)
    for resource in (make_user("root"), ADMIN_ROLE, make_binding("root", "admin", {"global": True})):
        rtype = BY_MODEL[type(resource)]
        await open_store(rtype.bucket).create(rtype.key(resource.name), codec.encode(resource))
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
        host = Host("gateway", config, MemoryBus(), open_store, keys.verifier, tasks, stack)
        await build(host)
        await host.synced()
        await host.finish_build()
        assert host.waiting_for() == []
        if kind == "socket":
            connector, base = aiohttp.UnixConnector(str(config.socket)), "http://hub"
        else:
            connector, base = aiohttp.TCPConnector(), f"http://{(tmp_path / 'address').read_text()}"
        headers = {HEADER: keys.signer.seal(make_principal("root"))}
        async with (
            aiohttp.ClientSession(connector=connector, headers=headers) as session,
            session.get(f"{base}{OURS}/users") as answer,
        ):
            assert [u["metadata"]["name"] for u in (await answer.json())["items"]] == ["root"]
        host.begin_stop()


async def test_settings_without_an_address_or_with_two_are_refused(tmp_path):
    for where in ({}, {"socket": tmp_path / "s", "listen": "127.0.0.1:0"}):
        async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
            host = Host(
                "gateway",
                make_config(tmp_path, **where),
                MemoryBus(),
                MemoryStore,
                Keys(Host.now).verifier,
                tasks,
                stack,
            )
            with pytest.raises(ValueError, match="exactly one"):
                await build(host)
            host.begin_stop()


def test_the_bus_takes_what_the_gateway_lets_in_with_room_for_what_goes_around_it():
    assert f"max_payload: {MAX_PAYLOAD_BYTES}" in render_config(
        ServerSettings(Path("/unused"), 0, 0, "operator", "system", {}, 2**30)
    )
    assert MAX_PAYLOAD_BYTES >= MAX_BYTES + 256 * 1024
    assert max(max_object_bytes(rtype) for rtype in RESOURCE_TYPES) < MAX_PAYLOAD_BYTES
