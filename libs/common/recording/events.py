"""What happens in a session: bytes on a channel, at a moment. Pure.

The channels are those of Kubernetes' WebSocket subprotocol (`v4.channel.k8s.io`); SPDY's streams are given the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from libs.common import errors

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
NAMES = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}
"""SPDY's `streamtype` → channel."""
OUTPUTS = (STDOUT, STDERR)


class Piece(NamedTuple):
    """Some bytes of one channel, as a decoder gives them: joined they are the channel's stream, wherever it was cut."""

    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """`at_ms` counts from the session's start. A resize's data is `COLUMNSxROWS`; an error's is the cluster's own Status."""

    at_ms: int
    channel: int
    data: bytes


class Undecodable(errors.BadRequest):
    """The stream is not what it must be to be recorded; such a session is ended."""
