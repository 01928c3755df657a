"""An agent's end of the reverse connections: the dialer that the agent runs, towards the API server's stand-in."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

from bench.proxy import scene
from bench.proxy.roles import talk
from libs.common.relay.dial import ReverseDialer, new_instance
from libs.common.relay.handshake import TunnelIdentity
from libs.common.relay.outbound import Hub
from libs.common.relay.pool import Address
from tests.auth_proxy.door import AgentKey

IDLE = 4
"""As `services.agent` keeps them."""


async def serve(config: dict[str, Any]) -> None:
    key = AgentKey(config["seed"].encode())
    tls = ssl.create_default_context(cafile=str(Path(config["folder"]) / "tls.crt"))
    api_tls = ssl.create_default_context(cafile=str(Path(config["backend_folder"]) / "tls.crt"))
    address = Address("the API server", "127.0.0.1", config["backend"], tls=api_tls, server_hostname="localhost")
    credential = scene.API_CREDENTIAL.encode()
    dialer = ReverseDialer(
        Hub(f"https://localhost:{config['hub']}", tls, {}),
        TunnelIdentity(config["cluster"], key.public, key.sign, new_instance()),
        lambda: address, lambda: credential, idle=IDLE,
    )  # fmt: skip
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(dialer.run(), name="dialer")
        for _ in range(2000):
            if dialer.connected == IDLE:
                break
            await asyncio.sleep(0.01)
        await talk.serve(connected=dialer.connected)


if __name__ == "__main__":
    talk.run(serve)
