"""The agent's settings: flags, else `HERDSMAN_…` in the environment, else the defaults."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

NAMESPACE = "herdsman-system"
SECRET = "herdsman-agent"  # noqa: S105 - the name of a Secret, not one


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """`state_dir` None = keep the state in Secrets of the pod's namespace. `health_listen` empty = no probes."""

    hub: str
    ca_file: Path
    registration_token_file: Path | None
    state_dir: Path | None
    kubeconfig: Path | None
    context: str
    cluster_name: str
    tunnels: int
    log_level: str
    log_format: str
    health_listen: str = ""

    @property
    def hub_host(self) -> str:
        return urlsplit(self.hub).hostname or ""

    @property
    def hub_port(self) -> int:
        return urlsplit(self.hub).port or 443

    @property
    def bus_url(self) -> str:
        return f"wss://{urlsplit(self.hub).netloc}/nats"


def parse_arguments(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> AgentConfig:
    """The settings. Ends the process with code 2 and a sentence when they cannot be used, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="herdsman-agent", description="Connects one Kubernetes cluster to a Herdsman hub."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="run")
    run = commands.add_parser("run", help="run until stopped", description=parser.description)

    def add(flag: str, help_: str, default: str | None = None, **more: object) -> None:
        name = "HERDSMAN_" + flag.lstrip("-").replace("-", "_").upper()
        value = environment.get(name, default)
        run.add_argument(flag, default=value, required=value is None, help=f"{help_} [{name}]", **more)  # type: ignore[arg-type]

    add("--hub", "the hub's address, https://HOST[:PORT]", metavar="URL")
    add("--ca-file", "PEM file with the hub's own certificate authority; no other is trusted", metavar="FILE")
    add("--registration-token-file", "file with a one-time registration token", "", metavar="FILE")
    add("--state-dir", "folder for the identity; without it, Secrets of the pod's namespace", "", metavar="DIR")
    add(
        "--kubeconfig",
        "how to reach the cluster's API server; without it, the pod's service account",
        "",
        metavar="FILE",
    )
    add("--context", "context of the kubeconfig; default: its current one", "", metavar="NAME")
    add("--cluster-name", "refuse to serve any other cluster than the one that the hub calls so", "", metavar="NAME")
    add("--tunnels", "idle reverse connections that are kept ready", "4", metavar="N")
    add(
        "--health-listen",
        "HOST:PORT for /healthz and /readyz; :PORT is all interfaces; default: none",
        "",
        metavar="ADDRESS",
    )
    add("--log-level", "debug, info, warning or error", "info")
    add("--log-format", "json or console", "json" if environment.get("KUBERNETES_SERVICE_HOST") else "console")
    found = run.parse_args(arguments[1:]) if arguments[:1] == ["run"] else parser.parse_args(arguments)

    parts = urlsplit(found.hub)
    if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/") or parts.query:
        run.error("--hub must be https://HOST[:PORT], nothing more: the agent speaks to nobody without TLS")
    if not str(found.tunnels).isdigit() or not 1 <= int(found.tunnels) <= 64:
        run.error("--tunnels must be a number from 1 to 64")
    if found.log_level not in ("debug", "info", "warning", "error") or found.log_format not in ("json", "console"):
        run.error("--log-level is debug, info, warning or error; --log-format is json or console")
    if found.health_listen and not found.health_listen.rpartition(":")[2].isdigit():
        run.error("--health-listen must be HOST:PORT or :PORT")
    if not found.state_dir and not environment.get("KUBERNETES_SERVICE_HOST"):
        run.error("--state-dir is needed outside of a pod")
    return AgentConfig(
        hub=found.hub.rstrip("/"),
        ca_file=Path(found.ca_file),
        registration_token_file=_path(found.registration_token_file),
        state_dir=_path(found.state_dir),
        kubeconfig=_path(found.kubeconfig),
        context=found.context,
        cluster_name=found.cluster_name,
        tunnels=int(found.tunnels),
        log_level=found.log_level,
        log_format=found.log_format,
        health_listen=found.health_listen,
    )


def _path(text: str) -> Path | None:
    return Path(text) if text else None
