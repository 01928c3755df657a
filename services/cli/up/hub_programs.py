"""The table of a hub's programs and their order. Used by `run`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial

from libs.common.bus.server import find_program, remove_indexes
from services.cli.up.config import SERVICES
from services.cli.up.layout import Layout
from services.cli.up.programs import Program, health_endpoint, public_endpoint, tcp_banner

NATS_STAGE, OWNERS_STAGE, GATEWAY_STAGE, FRONT_DOOR_STAGE = 0, 1, 2, 3
_STAGES = {"gateway": GATEWAY_STAGE, "auth_proxy": FRONT_DOOR_STAGE}


def hub_programs(
    layout: Layout, environment: Mapping[str, str], *, nats_port: int, probe_host: str, public_port: int
) -> list[Program]:
    """Everything that makes up a hub. A stage stops only after all later ones have."""
    nats = Program(
        name="nats",
        argv=(str(find_program()), "-c", str(layout.nats_config)),
        stage=NATS_STAGE,
        ready=tcp_banner("127.0.0.1", nats_port, b"INFO "),
        environment=environment,
        ready_timeout_s=60.0,
        stop_timeout_s=15.0,
        before_start=partial(remove_indexes, layout.nats),
    )
    return [nats, *(_service(layout, environment, name, probe_host, public_port) for name in SERVICES)]


def _service(layout: Layout, environment: Mapping[str, str], name: str, probe_host: str, public_port: int) -> Program:
    return Program(
        name=name,
        argv=(sys.executable, "-m", f"services.{name}", "--config", str(layout.config(name))),
        stage=_STAGES.get(name, OWNERS_STAGE),
        ready=(
            public_endpoint(probe_host, public_port, "localhost", layout.ca_file)
            if name == "auth_proxy"
            else health_endpoint(layout.health_file(name))
        ),
        environment=environment,
        stop_timeout_s=12.0,
    )
