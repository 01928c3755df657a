"""Options of a connection, and its gentle end. Called for every connection of the engine, accepted or dialled."""

from __future__ import annotations

import asyncio
import contextlib
import socket

WRITE_HIGH_WATER = 256 * 1024
USER_TIMEOUT_MS = 30_000
"""Unacknowledged bytes for so long: the peer is gone, whatever it promised."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 15, 5, 3
DRAIN_S = 10.0


def tune(transport: asyncio.Transport) -> None:
    """Small write buffers, no delay, and a kernel that notices a dead peer."""
    transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
    if (limit_read_buffer := getattr(transport, "set_read_buffer_limits", None)) is not None:
        # TLS that is not read must not read on by itself: uvloop throws what it holds away when the end of the stream comes meanwhile.
        limit_read_buffer(high=1, low=0)
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # The peer may be gone already; its connection_lost follows and is the report.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S), ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
            ("TCP_KEEPCNT", KEEPALIVE_PROBES), ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
        ):  # fmt: skip
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def find_peer(transport: asyncio.Transport) -> str:
    """The address of the other end; `local` for a Unix socket."""
    address = transport.get_extra_info("peername")
    return str(address[0]) if isinstance(address, tuple) else "local"


def close_gently(transport: asyncio.Transport) -> None:
    """Let what is queued go out, then close. A peer that takes nothing at all for `DRAIN_S` is cut; a slow one is not."""
    left = transport.get_write_buffer_size()
    transport.close()
    if left:
        _watch_drain(transport, left)


def _watch_drain(transport: asyncio.Transport, before: int) -> None:
    def look() -> None:
        left = transport.get_write_buffer_size()
        if left >= before:
            transport.abort()
        elif left:
            _watch_drain(transport, left)

    asyncio.get_running_loop().call_later(DRAIN_S, look)
