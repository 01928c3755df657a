"""Who ran what where, and how it ended: the first and the last message of a recording."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_SETTINGS = ConfigDict(extra="ignore", alias_generator=to_camel, populate_by_name=True)
"""Stored with the names below, shown with those of Kubernetes' style."""


class Facts(BaseModel):
    """What is known when a session begins."""

    model_config = _SETTINGS

    id: str
    audit_id: str = ""
    user: str
    user_uid: str
    acting_as: str = ""
    """Whom the cluster took the user for, where another was wished for (`kubectl --as`)."""
    token: str = ""
    client: str = ""
    cluster: str
    cluster_uid: str
    namespace: str
    pod: str
    container: str = ""
    action: Literal["exec", "attach"]
    command: list[str] = Field(default_factory=list)
    tty: bool = False
    stdin: bool = False
    carrier: str
    """What the client asked to switch to: `websocket` or `spdy/3.1`."""
    input_recorded: bool = False
    started: datetime


class Outcome(BaseModel):
    """What is known when it is over. `exit_code` is None where the cluster named none: a killed client, a lost connection."""

    model_config = _SETTINGS

    ended: datetime
    duration_ms: int
    http_status: int
    """101 for a session; anything else is the answer to one that did not begin."""
    protocol: str = ""
    exit_code: int | None = None
    message: str = ""
    output_bytes: int = 0
    """On stdout and stderr together."""
    input_bytes: int = 0
    """On stdin; only this number is kept of it unless `Facts.input_recorded`."""
