"""More of identity than `herdsman up` starts: a second process on the hub's own bus, and sign-ins asked for on that bus as the gateway asks."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from integration.harness.hub import Hub, eventually
from libs.common import errors
from libs.common.bus.connection import NatsOptions
from libs.common.bus.credentials import Credential, read_creds
from libs.common.bus.nats import NatsBus, connect
from libs.common.contracts.messages import IssuedToken, LoginRequest
from libs.common.contracts.methods import LOGIN
from libs.common.contracts.permissions import inbox_prefix
from libs.common.observe import client


def settings_of(hub: Hub, service: str) -> dict[str, Any]:
    """What `herdsman up` wrote for it."""
    return dict(json.loads((hub.data / "config" / f"{service}.json").read_text()))


@asynccontextmanager
async def second_identity(hub: Hub, folder: Path) -> AsyncIterator[Path]:
    """A replica beside the hub's own; gives the file of its log."""
    health, config, log = folder / "second.health", folder / "second.json", folder / "second.log"
    config.write_text(json.dumps(settings_of(hub, "identity") | {"health_file": str(health), "log_level": "info"}))
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.identity", "--config", str(config), stdout=output, stderr=output
        )
    try:

        async def is_ready() -> bool:
            assert process.returncode is None, log.read_text()
            if not health.exists():
                return False
            place = urlsplit(health.read_text().strip())
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read(-1)
            writer.close()
            return b" 200 " in answer.partition(b"\r\n")[0]

        await eventually(is_ready, 60)
        yield log
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def bus_as(hub: Hub, service: str) -> AsyncIterator[NatsBus]:
    """The hub's bus with this service's credential and no more."""
    settings = settings_of(hub, service)

    async def credential() -> Credential:
        return read_creds(Path(settings["nats_creds"]))

    options = NatsOptions(
        servers=tuple(settings["nats_url"]), credential=credential, name=f"{service} of a test", inbox_prefix=inbox_prefix(service)
    )  # fmt: skip
    async with connect(options) as bus:
        yield bus


async def sign_in(bus: NatsBus, user: str, password: str, address: str, **more: Any) -> IssuedToken:
    """As the gateway asks. Raises what identity raises."""
    request = LoginRequest(user=user, password=password, client_address=address, **more)
    with client.entered(client.make(address, "a test")):
        return await bus.request(LOGIN.subject, request, LOGIN.reply, timeout_s=20)


async def is_let_guess(bus: NatsBus, user: str, address: str) -> bool:
    """One wrong password: whether it was looked at, and not throttled."""
    try:
        await sign_in(bus, user, "a wrong password", address)
    except errors.Unauthenticated:
        return True
    except errors.TooManyRequests:
        return False
    raise AssertionError("a wrong password was right")
