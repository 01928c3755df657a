"""The front door says by which authorities it is known, and follows its files."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime

import pytest

from libs.common.crypto import ca
from libs.common.crypto.bundle import digest_of
from libs.common.runtime.config import ConfigError
from services.auth_proxy import authorities as module
from services.auth_proxy.authorities import Authorities
from tests.auth_proxy.door import AgentKey, open_door
from tests.auth_proxy.test_agents import ask

NOW = datetime.now(UTC)


async def test_bundle_is_served_and_announced_and_a_changed_one_reaches_agents_that_rest(
    tmp_path, echo, eventually, monkeypatch
):
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.05)
    file = tmp_path / "ca.crt"
    first, second = ca.generate_ca("one", NOW).certificate, ca.generate_ca("two", NOW).certificate
    file.write_bytes(first)
    async with open_door(tmp_path, ca_file=file) as door:
        await door.member()
        uid, key = door.uids["cluster/prod"], door.keys["prod"]
        assert (await door.get("/agent/v1/ca")).body == first
        answer = await ask(door, cluster=uid, key=key.public, sign=key.sign)
        assert answer["ca"] == digest_of(first)
        heard = []
        async with door.agent("prod", echo.address) as agent:
            agent._on_ca = heard.append
            file.write_bytes(b"half a fi")
            await asyncio.sleep(0.2)
            assert (await door.get("/agent/v1/ca")).body == first
            file.write_bytes(ca.join(first, second))
            await eventually(lambda: digest_of(ca.join(first, second)) in heard, 20)


async def test_hub_without_a_bundle_announces_none(door):
    await door.member()
    assert (await door.get("/agent/v1/ca")).status == 404
    uid = door.uids["cluster/prod"]
    answer = await ask(door, cluster=uid, key=AgentKey().public, sign=AgentKey().sign)
    assert answer["code"] == 403


async def test_certificate_is_followed_without_a_signal(tmp_path, eventually, monkeypatch):
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.05)
    async with open_door(tmp_path) as door:
        authority = ca.generate_ca("later", NOW)
        pair = ca.issue_server(authority, ["localhost"], NOW)
        (tmp_path / "tls.key").write_bytes(pair.key)
        await asyncio.sleep(0.2)  # for a moment the two do not fit: the old ones go on
        assert (await door.get("/healthz")).status == 200
        (tmp_path / "tls.crt").write_bytes(pair.certificate)
        context = ssl.create_default_context(cadata=authority.certificate.decode())

        async def served():
            try:
                _, writer = await asyncio.open_connection("localhost", door.port, ssl=context)
            except ssl.SSLError:
                return False
            writer.close()
            return True

        for _ in range(100):
            if await served():
                break
            await asyncio.sleep(0.05)
        assert await served()


def test_bundle_that_cannot_be_used_ends_the_start(tmp_path):
    file = tmp_path / "ca.crt"
    for content in (b"", b"nonsense"):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be used"):
            Authorities(file, (), lambda _digest: None, lambda: None)
    with pytest.raises(ConfigError):
        Authorities(tmp_path / "missing", (), lambda _digest: None, lambda: None)
