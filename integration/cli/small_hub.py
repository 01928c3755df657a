"""`python -m integration.cli.small_hub DATA_DIR PORT`: the supervisor of `herdsman up` on three small programs.

A real nats-server, a program that does nothing, and a TLS server that answers /readyz, so that the faults of processes and
signals can be tried in seconds. It does not imitate the services: what they do together is tested with the real command.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from libs.common.bus.server import find_program
from services.cli.main import exit_code
from services.cli.up import pki, ports
from services.cli.up.layout import Layout
from services.cli.up.preparation import Options, Prepared
from services.cli.up.programs import Program, public_endpoint, tcp_banner
from services.cli.up.progress import Progress
from services.cli.up.run import run


def prepare(options: Options, layout: Layout, environment: Mapping[str, str]) -> Prepared:
    """The same shape as a hub: a store, a service, a front door."""
    ports.check_public(options.host, options.port)
    pki.ensure_certificates(layout, options.host, datetime.now(UTC))
    nats_port = ports.keep_ports(layout.ports, ("nats",))["nats"]
    layout.nats_config.write_text(
        f'listen: "127.0.0.1:{nats_port}"\njetstream {{ store_dir: "{layout.nats_store}" }}\n'
    )
    nats = Program(
        "nats",
        (str(find_program()), "-c", str(layout.nats_config)),
        0,
        tcp_banner("127.0.0.1", nats_port, b"INFO "),
        environment,
    )
    idle = Program("idle", (sys.executable, "-I", "-c", "import time; time.sleep(3600)"), 1, None, environment)
    door = Program(
        "auth_proxy",
        (sys.executable, "-m", "integration.cli.small_hub", "serve", str(layout.root), str(options.port)),
        2,
        public_endpoint("127.0.0.1", options.port, "localhost", layout.ca_file),
        environment,
    )
    return Prepared([[nats], [idle, door]], f"https://127.0.0.1:{options.port}", f"nats://127.0.0.1:{nats_port}")


async def serve(layout: Layout, port: int) -> None:
    """Answers every request with 200."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(layout.server_certificate, layout.server_key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, ssl=context)
    await server.serve_forever()


def main() -> int:
    from libs.common.errors import HerdsmanError

    if sys.argv[1] == "serve":
        asyncio.run(serve(Layout(Path(sys.argv[2])), int(sys.argv[3])))
        return 0
    options = Options(Path(sys.argv[1]), "127.0.0.1", int(sys.argv[2]), "admin", "info", None, False)
    try:
        asyncio.run(run(options, Progress(), prepare))
    except HerdsmanError as error:
        sys.stderr.write(f"herdsman: {error.message}\n")
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
