"""Keys, accounts, credentials and settings of the embedded nats-server, all from `libs.common.bus`. Used by `preparation` and `backup`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from libs.common.bus import accounts, server
from libs.common.contracts.methods import SERVICES
from services.cli.files import read_json, write_private
from services.cli.up.layout import Layout


@dataclass(frozen=True, slots=True)
class BusFiles:
    """What services need to know of it. `services` maps a service to its credential file."""

    services: Mapping[str, Path]
    administration: Path
    """Credential file for backup and restore."""
    keys: accounts.NatsKeys
    system: Path
    """Credential file for pushing revocations."""


def prepare(layout: Layout, *, port: int, websocket_port: int, monitoring_port: int) -> BusFiles:
    """Make what is missing, write the server's settings anew, and say where everything lies."""
    now = datetime.now(UTC)
    keys = accounts.ensure_keys(layout.nats_keys)
    files = {service: _credentials(layout, service) for service in SERVICES}
    for service, file in files.items():
        write_private(file, accounts.service_credentials(keys, service, now))
    administration, system = _credentials(layout, "administration"), _credentials(layout, "system")
    write_private(administration, accounts.administration_credentials(keys, now))
    write_private(system, accounts.system_credentials(keys, now))
    issued_at = _issued_at(layout, keys, now)
    settings = server.ServerSettings(
        directory=layout.nats,
        port=port,
        websocket_port=websocket_port,
        operator_jwt=accounts.operator_jwt(keys, issued_at),
        system_account=keys.public("sys"),
        accounts=accounts.account_jwts(keys, issued_at),
        max_store_bytes=_store_limit(layout),
        monitoring_port=monitoring_port,
    )
    write_private(layout.nats_config, server.render_config(settings))
    return BusFiles(files, administration, keys, system)


def _credentials(layout: Layout, name: str) -> Path:
    return layout.nats_keys / f"{name}.creds"


def _issued_at(layout: Layout, keys: accounts.NatsKeys, now: datetime) -> datetime:
    """When the account JWTs of this content were first made.

    The server keeps the newest JWT of an account. One that said the same but was made at each start would displace the one
    with the revoked agents, and let those in until they are pushed again.
    """
    file = layout.nats / "accounts.json"
    content = json.dumps(accounts.account_jwts(keys, datetime.fromtimestamp(0, UTC)), sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    known = read_json(file)
    if known.get("digest") == digest:
        return datetime.fromtimestamp(float(known["issued_at"]), UTC)
    write_private(file, json.dumps({"digest": digest, "issued_at": now.timestamp()}) + "\n")
    return now


def _store_limit(layout: Layout) -> int:
    """The share of the disk that streams may fill: what is free, and what they have taken already."""
    taken = sum(file.stat().st_size for file in layout.nats_store.rglob("*") if file.is_file())
    return server.max_store_bytes(layout.nats) + int(taken * server.STORE_SHARE)
