"""The agent's dialer as a process of its own, for another network namespace: `python -m integration.tunnel.agent`.

Its settings come as JSON on standard input; each change of the number of connections goes out as a line `connected N CARRIER`. Behind
it stands a small server in place of an API server, because what is tested is the network in between: it echoes heads, holds
watches open, echoes upgraded streams, and floods.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys

import uvloop

from libs.common.relay.dial import ReverseDialer, new_instance
from libs.common.relay.handshake import TunnelIdentity
from libs.common.relay.outbound import Hub
from libs.common.relay.pool import Address
from services.agent.identity import make_signer, public_key_of

FLOOD_BYTES = 96 * 1024 * 1024


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"Upgrade: SPDY" in head:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
                while data := await reader.read(65536):
                    writer.write(data)
                return
            if b"watch=true" in head:
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n")
                await reader.read()
                return
            if b"flood=true" in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % FLOOD_BYTES)
                for _ in range(FLOOD_BYTES // 65536):
                    writer.write(b"f" * 65536)
                    await writer.drain()
                continue
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


async def run(settings: dict[str, str]) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = Address("the API server", "127.0.0.1", server.sockets[0].getsockname()[1])
    tls = ssl.create_default_context(cafile=settings["ca"])
    tls.check_hostname = False
    seed = settings["seed"]
    identity = TunnelIdentity(settings["uid"], public_key_of(seed), make_signer(seed), new_instance())
    dialer = ReverseDialer(
        Hub(settings["hub"], tls, json.loads(settings.get("environment", "{}"))), identity, lambda: address, lambda: b""
    )
    running = asyncio.create_task(dialer.run(), name="dialer")
    told = ""
    while not running.done():
        now = f"connected {dialer.connected} {dialer.carrier}"
        if now != told:
            told = now
            sys.stdout.write(now + "\n")
            sys.stdout.flush()
        await asyncio.sleep(0.05)
    await running


if __name__ == "__main__":
    uvloop.run(run(json.loads(sys.stdin.readline())))
