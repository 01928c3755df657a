"""Settings that every service has, and how they are read: a JSON file, each field overridable by `HERDSMAN_<FIELD>`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

C = TypeVar("C", bound="ServiceConfig")


class ServiceConfig(BaseModel):
    """Base of each service's settings. Unknown fields are refused: a misspelt setting must not be silently without effect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nats_url: list[str] = Field(description="Addresses of the NATS servers; any one suffices to begin with.")
    nats_creds: Path | None = Field(default=None, description="This service's credential file (JWT and seed).")
    identity_public_key: Path = Field(description="PEM file that verifies the front door's identity envelopes.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = Field(default="json", description="json for machines, console for people.")
    health_listen: str = Field(
        default="127.0.0.1:0", description="Address of /healthz, /readyz and /metrics; port 0 = any free one."
    )
    health_file: Path | None = Field(
        default=None, description="Where the chosen health address is written, for port 0."
    )
    otlp_endpoint: str = Field(default="", description="OTLP/HTTP endpoint for traces; empty = no traces are recorded.")
    bucket_replicas: int = Field(
        default=1, ge=1, le=5, description="Copies of this service's bucket: 3 where NATS has three servers or more."
    )
    stop_timeout_s: float = Field(
        default=10.0, gt=0, description="How long running work may take to finish when stopping."
    )

    @field_validator("nats_url")
    @classmethod
    def _check_scheme(cls, addresses: list[str]) -> list[str]:
        """WebSocket is for agents only: services do without the library that speaks it."""
        if not addresses or any(not address.startswith(("nats://", "tls://")) for address in addresses):
            raise ValueError("give at least one address, nats://HOST:PORT or tls://HOST:PORT")
        return addresses


class ConfigError(Exception):
    """The settings cannot be used; the text says which and why."""


def load(config_type: type[C], file: Path, environment: Mapping[str, str] = os.environ) -> C:
    """Settings from `file`, overridden by the environment (`HERDSMAN_LOG_LEVEL=debug`; lists as JSON). Raises ConfigError."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"cannot read the settings file {file}: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigError(f"the settings file {file} is not JSON: {exc}") from exc
    if not isinstance(values, dict):
        raise ConfigError(f"the settings file {file} must hold one JSON object")
    for name in config_type.model_fields:
        text = environment.get(f"HERDSMAN_{name.upper()}")
        if text is not None:
            values[name] = _from_environment(text)
    try:
        return config_type.model_validate(values)
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors(include_url=False))
        raise ConfigError(f"the settings in {file} cannot be used: {problems}") from exc


def _from_environment(text: str) -> object:
    """Lists and objects are written as JSON, everything else is taken as it stands (pydantic converts)."""
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except ValueError as exc:
            raise ConfigError(f"a setting in the environment looks like JSON and is not: {exc}") from exc
    return text
