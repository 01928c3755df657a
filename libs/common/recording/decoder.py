"""Which decoder reads a session, chosen from the answer that switched protocols. Pure."""

from __future__ import annotations

from typing import Protocol

from libs.common.recording.events import Piece, Undecodable
from libs.common.recording.spdy import SpdyDecoder
from libs.common.recording.websocket import PROTOCOLS, WebSocketDecoder


class Decoder(Protocol):
    """Fed with every byte of both directions. Raises Undecodable, after which it is of no more use.

    However the bytes are cut, the pieces say the same. What waits for its rest is bounded.
    """

    protocol: str

    def from_client(self, data: bytes) -> list[Piece]: ...

    def from_server(self, data: bytes) -> list[Piece]: ...

    def last_words(self, message: str) -> bytes:
        """Bytes for the client that end the session with a sentence; empty where none can be said now."""
        ...


def make_decoder(upgrade: bytes, *, subprotocol: bytes, extensions: bytes, stream_protocol: bytes) -> Decoder:
    """`upgrade` in lower case; the others are values of the 101's headers. Raises Undecodable for what can't be recorded."""
    if upgrade == b"spdy/3.1":
        return SpdyDecoder(stream_protocol.decode("latin-1"))
    if upgrade != b"websocket":
        raise Undecodable("sessions are recorded over WebSocket and SPDY/3.1 only")
    if extensions:
        raise Undecodable("the session's WebSocket is compressed: it can't be recorded")
    name = subprotocol.decode("latin-1")
    if name not in PROTOCOLS:
        raise Undecodable(
            f"sessions are recorded with the subprotocols {' and '.join(PROTOCOLS)} only: use a newer client"
        )
    return WebSocketDecoder(name)
