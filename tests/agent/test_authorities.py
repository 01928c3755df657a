"""By which authorities an agent knows its hub: learned over a verified connection, kept, and given up for what a person gives."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime

import pytest
import uvloop

from libs.common.crypto import ca
from libs.common.crypto.bundle import digest_of
from libs.common.relay.outbound import Hub
from services.agent.authorities import Authorities
from services.agent.identity import trust
from services.agent.state import Identity

NOW = datetime.now(UTC)


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


class Keeper:
    def __init__(self):
        self.kept = None
        self.written = asyncio.Event()

    async def update(self, *, hub_ca, given_ca):
        self.kept = Identity("", "", "", "", "", "", 0, "", hub_ca, given_ca)
        self.written.set()
        return self.kept


class FakeHub:
    """Answers `GET /agent/v1/ca` with `bundle`, by a certificate of `signer`."""

    def __init__(self, folder, signer):
        self.bundle, self.folder, self.asked = b"", folder, 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.sign(signer)

    def sign(self, signer):
        pair = ca.issue_server(signer, ["localhost", "127.0.0.1"], NOW)
        (self.folder / "s.crt").write_bytes(pair.certificate)
        (self.folder / "s.key").write_bytes(pair.key)
        self.context.load_cert_chain(self.folder / "s.crt", self.folder / "s.key")

    async def serve(self, reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.bundle) + self.bundle)
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@pytest.fixture
async def world(tmp_path):
    old, new = ca.generate_ca("old", NOW), ca.generate_ca("new", NOW)
    given = tmp_path / "given.crt"
    given.write_bytes(old.certificate)
    server_side = FakeHub(tmp_path, old)
    server = await asyncio.start_server(server_side.serve, "127.0.0.1", 0, ssl=server_side.context)
    hub = Hub(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", trust(given), {})
    authorities, keeper = Authorities(hub, given), Keeper()
    task = asyncio.create_task(authorities.run(keeper))
    yield old, new, given, server_side, hub, authorities, keeper
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    server.close()
    await asyncio.sleep(0.05)


async def test_announced_bundle_is_taken_over_kept_and_used(world, eventually):
    old, new, given, server_side, hub, authorities, keeper = world
    server_side.bundle = ca.join(old.certificate, new.certificate)
    announced = digest_of(server_side.bundle)
    authorities.told("")
    authorities.told(authorities.digest)
    await asyncio.sleep(0.05)
    assert not server_side.asked
    authorities.told(announced)
    await eventually(lambda: authorities.digest == announced)
    assert keeper.kept.hub_ca.encode() == server_side.bundle
    # The hub goes over to the new one, and then drops the old one.
    server_side.sign(new)
    server_side.bundle = new.certificate
    authorities.told(digest_of(new.certificate))
    await eventually(lambda: authorities.digest == digest_of(new.certificate))
    # In the next life it goes on with that; given another file, it believes the file.
    again = Authorities(Hub(hub.url, trust(given), {}), given)
    again.resume(keeper.kept)
    assert again.digest == digest_of(new.certificate)
    given.write_bytes(ca.join(old.certificate, new.certificate))
    other = Authorities(Hub(hub.url, trust(given), {}), given)
    other.resume(keeper.kept)
    assert other.digest == digest_of(given.read_bytes())


@pytest.mark.parametrize("what", ["an authority that did not sign the hub", "a server certificate", "no PEM", ""])
async def test_bundle_by_which_the_hub_cannot_be_known_is_refused(world, eventually, what):
    old, new, _, server_side, _, authorities, keeper = world
    before = authorities.digest
    server_side.bundle = {
        "an authority that did not sign the hub": new.certificate,
        "a server certificate": old.certificate + (server_side.folder / "s.crt").read_bytes(),
    }.get(what, what.encode())
    authorities.told("ab" * 32)
    await eventually(lambda: server_side.asked)
    await asyncio.sleep(0.1)
    assert authorities.digest == before
    assert keeper.kept is None
