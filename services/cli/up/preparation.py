"""What must be on disk before the hub starts: certificates, keys, the first password, settings. Called by `run`, in a thread.

All secrets are made here, once, and are never shown; nothing is replaced that somebody may rely on.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from libs.common.crypto.envelope import generate_key_pair
from libs.common.crypto.sealed import render_ring
from services.cli.files import write_private
from services.cli.up import bus, pki, ports
from services.cli.up.config import Facts, write_configs
from services.cli.up.hub_programs import hub_programs
from services.cli.up.layout import Layout
from services.cli.up.programs import Program

_PASSED_ON = ("HERDSMAN_CACHE_DIR", "HERDSMAN_OTLP_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Options:
    """The command line. `local_cluster` None = none; `insist` when its name was given."""

    data_dir: Path
    host: str
    port: int
    admin_user: str
    log_level: str
    local_cluster: str | None
    insist: bool
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Prepared:
    """Ready to start: each wave comes up together, after the one before is ready."""

    waves: Sequence[Sequence[Program]]
    public_url: str
    nats_url: str
    notices: Sequence[str] = field(default_factory=tuple)
    monitoring_port: int = 0
    """Loopback port of nats-server's /healthz; 0 = nobody looks after its store."""


Prepare = Callable[[Options, Layout, Mapping[str, str]], Prepared]


def prepare_hub(options: Options, layout: Layout, environment: Mapping[str, str]) -> Prepared:
    """Everything on disk that the services need. Idempotent: a second start finds it all and writes the settings anew."""
    ports.check_public(options.host, options.port)
    notices: list[str] = []
    reason = pki.ensure_certificates(layout, options.host, datetime.now(UTC))
    if reason and reason != "it is the first":
        notices.append(f"the server certificate was renewed: {reason}")
    if not (layout.envelope_key.exists() and layout.envelope_public_key.exists()):
        private, public = generate_key_pair()
        write_private(layout.envelope_key, private)
        write_private(layout.envelope_public_key, public, 0o644)
    if not layout.secrets_keys.exists():
        write_private(layout.secrets_keys, render_ring("k1"))
    first_start = not any(layout.nats_store.iterdir())
    if first_start and not layout.admin_password.exists():
        write_private(layout.admin_password, secrets.token_urlsafe(18) + "\n")
    chosen = ports.keep_ports(layout.ports, ("nats", "nats_websocket", "nats_monitoring"))
    bus_files = bus.prepare(
        layout, port=chosen["nats"], websocket_port=chosen["nats_websocket"], monitoring_port=chosen["nats_monitoring"]
    )
    # An address that a dead process wrote must not pass for that of the new one.
    for stale in layout.health.iterdir():
        stale.unlink()
    layout.gateway_socket.unlink(missing_ok=True)
    facts = Facts(
        listen=f"[{options.host}]:{options.port}" if ":" in options.host else f"{options.host}:{options.port}",
        public_url=f"https://{pki.public_host(options.host)}:{options.port}",
        nats_url=f"nats://127.0.0.1:{chosen['nats']}",
        nats_websocket=f"127.0.0.1:{chosen['nats_websocket']}",
        bus=bus_files,
        admin_user=options.admin_user,
        log_level=options.log_level,
        workers=options.workers,
    )
    write_configs(layout, facts)
    nats, *services = hub_programs(
        layout, environment, nats_port=chosen["nats"], probe_host=_probe_host(options.host), public_port=options.port
    )
    return Prepared([[nats], services], facts.public_url, facts.nats_url, notices, chosen["nats_monitoring"])


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Ours without `HERDSMAN_…`: services read their settings from there, and a client's variables mean other things.

    Compiled modules are kept, whatever the shell says: without them each start compiles everything again.
    """
    kept = {k: v for k, v in environ.items() if not k.startswith("HERDSMAN_") or k in _PASSED_ON}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _probe_host(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - recognised, not listened on
