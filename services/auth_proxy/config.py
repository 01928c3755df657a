"""The front door's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from libs.common.audit.stream import MAX_BYTES
from libs.common.runtime.config import ServiceConfig
from services.auth_proxy import defaults
from services.auth_proxy.forwarded import TrustedProxies


class AuthProxyConfig(ServiceConfig):
    """`gateway_socket` or `gateway_address` says where the gateway listens; the socket wins."""

    listen: str = Field(default=defaults.LISTEN, description="Public address; port 0 = any free one, see listen_file.")
    listen_file: Path | None = Field(
        default=None, description="Where the chosen public address is written, for port 0."
    )
    tls_certificate: Path = Field(description="PEM file: the certificate, then its chain. Read again on SIGHUP.")
    tls_key: Path = Field(description="PEM file with the certificate's private key.")
    ca_file: Path | None = Field(
        default=None,
        description="PEM bundle of the authorities by which agents may know this hub; they take it over. Read again when it changes.",
    )
    identity_private_key: Path = Field(
        description="PEM file that signs identity envelopes; only the front door has it."
    )
    gateway_socket: Path | None = Field(default=None, description="Unix socket of the gateway.")
    gateway_address: str = Field(default="", description="host:port of the gateway, where it is another machine's.")
    nats_ws_address: str = Field(
        default="", description="host:port of nats-server's WebSocket listener; empty = /nats is not served."
    )
    max_connections: int = Field(
        default=20_000, gt=0, description="More are closed at once: each costs about 25 KiB with TLS."
    )
    tunnel_wait_s: float = Field(
        default=10.0,
        gt=0,
        description="How long a request waits for a reverse connection of a cluster that was there a moment ago.",
    )
    direct_clusters: Path | None = Field(
        default=None,
        description="Folder with NAME.kubeconfig (0600) for each cluster that is reached directly; read again when a file changes.",
    )
    workers: int = Field(
        default=defaults.WORKERS,
        ge=0,
        le=256,
        description="Processes that share the public address; 0 = one for each core.",
    )
    worker: int = Field(default=0, ge=0, description="Number of this one among them; its parent says it.")
    hop_dir: Path | None = Field(
        default=None,
        description="Private folder for the sockets by which processes on this machine pass requests to each other.",
    )
    hop_listen: str = Field(
        default="",
        description="host:port for front doors of other machines: the first free of the 32 ports from there, since each process has its own; "
        "port 0 = any. Never a public address. Empty = none.",
    )
    hop_host: str = Field(
        default="", description="Name or address under which they reach it; empty = that of hop_listen."
    )
    hop_certificate: Path | None = Field(
        default=None, description="PEM file of the internal hop, both as server and as client."
    )
    hop_key: Path | None = Field(default=None, description="PEM file with its private key.")
    hop_ca: Path | None = Field(
        default=None,
        description="PEM file of the authority that signs front doors' hop certificates, and nobody else's.",
    )
    drain_delay_s: float = Field(
        default=0.0,
        ge=0,
        description="How long to go on accepting after SIGTERM, until balancers have taken notice; 5 to 15 in Kubernetes.",
    )
    drain_window_s: float = Field(
        default=defaults.DRAIN_WINDOW_S,
        gt=0,
        description="After that, how long requests and streams may take to end. terminationGracePeriodSeconds must be longer than both.",
    )
    replace_window_s: float = Field(
        default=defaults.REPLACE_WINDOW_S, gt=0, description="The same, in a rolling restart of the worker processes."
    )
    trusted_proxies: list[str] = Field(
        default_factory=list,
        description="Networks of balancers in front: their X-Forwarded-For says who the client is. Nobody else's does.",
    )
    max_calls_per_cluster: int = Field(
        default=2000,
        gt=0,
        description="Calls and streams under way in one cluster, in this process; more are answered 429. An agent keeps at most 2560 connections.",
    )
    audit_dir: Path = Field(
        description="Folder for audit events that the bus has not taken yet. It must outlive the process: what is in it is not lost."
    )
    audit_spool_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1024 * 1024,
        description="How much may wait there for the bus: at 5,000 calls a second about ten minutes.",
    )
    audit_when_full: Literal["refuse", "drop"] = Field(
        default="refuse",
        description="When nothing more can be written down: refuse = new calls are answered 503; drop = they go on unseen, counted.",
    )
    audit_file: Path | None = Field(
        default=None,
        description="The same events once more, a JSON line each, for whoever collects logs; none by default.",
    )
    audit_stream_bytes: int = Field(
        default=MAX_BYTES,
        ge=1024 * 1024,
        description="Size of the audit stream when it is made; what is more goes, the oldest first.",
    )
    audit_stream_days: int = Field(
        default=90, ge=1, description="How long events are kept; counts when the stream is made."
    )

    recordings_max_mb: int = Field(
        default=1024,
        ge=64,
        description="Room for recorded sessions, set aside with the first one; counts when the stream is made. When it is full, sessions that must be recorded are refused.",
    )
    recordings_max_days: int = Field(
        default=30, ge=1, description="How long a recorded session is kept; counts when the stream is made."
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        TrustedProxies(value)
        return value

    @field_validator("listen", "gateway_address", "nats_ws_address", "hop_listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value:
            parse_address(value)
        return value

    @model_validator(mode="after")
    def _has_gateway(self) -> AuthProxyConfig:
        if self.gateway_socket is None and not self.gateway_address:
            raise ValueError("gateway_socket or gateway_address must say where the gateway listens")
        return self

    @model_validator(mode="after")
    def _has_hop(self) -> AuthProxyConfig:
        if self.workers != 1 and self.hop_dir is None:
            raise ValueError("several workers need hop_dir, a private folder for the sockets between them")
        if self.hop_listen and not (self.hop_certificate and self.hop_key and self.hop_ca):
            raise ValueError("hop_listen needs hop_certificate, hop_key and hop_ca")
        if self.hop_listen and not self.hop_host and parse_address(self.hop_listen)[0] in ("0.0.0.0", "::"):  # noqa: S104
            raise ValueError("hop_listen is every address of this machine: hop_host must say which one others use")
        return self


def parse_address(text: str) -> tuple[str, int]:
    """`host:port`, IPv6 in brackets. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is no address: write host:port")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104
