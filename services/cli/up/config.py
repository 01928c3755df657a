"""The settings file of each service, rendered from the layout. Pure; `run` writes them at every start, so they are never edited by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from services.cli.files import write_private
from services.cli.up.bus import BusFiles
from services.cli.up.layout import Layout

SERVICES = ("identity", "authz", "project", "node_registry", "cluster_controller", "gateway", "auth_proxy")
"""Those that `up` starts, in reading order; each is `python -m services.<name> --config FILE`."""

DRAIN_WINDOW_S = 5.0
"""When the whole hub stops nobody takes over: what runs may finish, but streams are not waited for as in a rolling restart."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What differs from hub to hub."""

    listen: str
    """Public `host:port`, IPv6 in brackets."""
    public_url: str
    nats_url: str
    nats_websocket: str
    """`127.0.0.1:PORT` of nats-server's WebSocket listener."""
    bus: BusFiles
    admin_user: str
    log_level: str
    workers: int = 1
    """Processes of the front door; 0 = one for each core."""
    log_format: str = "console"


def render_configs(layout: Layout, facts: Facts) -> dict[str, dict[str, Any]]:
    """Service → its settings."""
    own: dict[str, dict[str, Any]] = {
        "identity": {
            # Generated here, and readable by nobody but who runs all of this.
            "bootstrap_admin": {
                "user": facts.admin_user,
                "password_file": str(layout.admin_password),
                "must_change": False,
            },
            "secrets_keys": str(layout.secrets_keys),
        },
        "authz": {"bootstrap_admin_user": facts.admin_user},
        "project": {},
        "node_registry": {},
        "cluster_controller": {
            "agents_account": facts.bus.keys.public("agents"),
            "agents_signing_seed_file": str(facts.bus.keys.seed_file("agents-signing")),
            "platform_account": facts.bus.keys.public("platform"),
            "operator_seed_file": str(facts.bus.keys.seed_file("operator")),
            "system_creds": str(facts.bus.system),
        },
        "gateway": {
            "socket": str(layout.gateway_socket),
            "public_url": facts.public_url,
            "public_ca_file": str(layout.ca_file),
        },
        "auth_proxy": {
            "listen": facts.listen,
            "tls_certificate": str(layout.server_certificate),
            "tls_key": str(layout.server_key),
            "ca_file": str(layout.ca_file),
            "identity_private_key": str(layout.envelope_key),
            "gateway_socket": str(layout.gateway_socket),
            "nats_ws_address": facts.nats_websocket,
            "direct_clusters": str(layout.direct),
            "workers": facts.workers,
            "hop_dir": str(layout.runtime),
            "drain_window_s": DRAIN_WINDOW_S,
            "audit_dir": str(layout.audit),
        },
    }
    return {service: {**_common(layout, facts, service), **own[service]} for service in SERVICES}


def _common(layout: Layout, facts: Facts, service: str) -> dict[str, Any]:
    return {
        "nats_url": [facts.nats_url],
        "nats_creds": str(facts.bus.services[service]),
        "identity_public_key": str(layout.envelope_public_key),
        "log_level": facts.log_level,
        "log_format": facts.log_format,
        "health_listen": "127.0.0.1:0",
        "health_file": str(layout.health_file(service)),
    }


def write_configs(layout: Layout, facts: Facts) -> None:
    """Write them all, private: some name secrets' files, and nobody else needs to know."""
    for service, settings in render_configs(layout, facts).items():
        write_private(layout.config(service), json.dumps(settings, indent=2) + "\n")
