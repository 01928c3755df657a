"""Keys, accounts, credentials and settings of the embedded nats-server, all from `libs.common.bus`. Used by `run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.cli.up.layout import Layout


@dataclass(frozen=True, slots=True)
class BusFiles:
    """What services need to know of it. `services` maps a service to its credential file."""

    services: Mapping[str, Path]
    agents_account: str
    agents_signing_seed: Path


def prepare(layout: Layout, *, port: int, websocket_port: int) -> BusFiles:
    """Make what is missing, write the server's settings anew, and say where everything lies."""
    raise NotImplementedError
