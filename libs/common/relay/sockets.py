"""Options of a connection, what the kernel knows about it, and its gentle end. Called for every connection, accepted or dialled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

WRITE_HIGH_WATER = 256 * 1024
KEEPALIVE = (15, 5, 3)
"""Seconds of silence before the first probe, between probes, and how many: a client that is away for a moment keeps its watch."""
PROMPT_KEEPALIVE = (4, 2, 2)
"""For reverse connections: whoever is behind one must be known to be there."""
PROMPT_DEAD_S = 8.0
"""What that adds up to; also as long as such a peer may leave bytes unacknowledged."""
DRAIN_S = 10.0
_UNACKNOWLEDGED, _LAST_DATA_RECEIVED, _LAST_ACK_RECEIVED = 24, 52, 56
"""Where `struct tcp_info` of linux/tcp.h holds the segments under way, and the milliseconds since data and an acknowledgement last came."""


def tune(transport: asyncio.Transport, keepalive: tuple[int, int, int] = KEEPALIVE) -> None:
    """Small write buffers, no delay, and a kernel that notices a dead peer while nothing is under way.

    No TCP_USER_TIMEOUT: it also ends a connection whose reader is well but reads nothing (a pager that waits for a key), because
    the kernel counts window probes that are answered as time without progress. `unheard_for_s` tells the two apart.
    """
    transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
    if (limit_read_buffer := getattr(transport, "set_read_buffer_limits", None)) is not None:
        # TLS that is not read must not read on by itself: uvloop throws what it holds away when the end of the stream comes meanwhile.
        limit_read_buffer(high=1, low=0)
    sock = _tcp_socket(transport)
    if sock is None:
        return
    idle, interval, probes = keepalive
    # The peer may be gone already; its connection_lost follows and is the report.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", idle), ("TCP_KEEPINTVL", interval), ("TCP_KEEPCNT", probes)):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def find_peer(transport: asyncio.Transport) -> str:
    """The address of the other end; `local` for a Unix socket."""
    address = transport.get_extra_info("peername")
    return str(address[0]) if isinstance(address, tuple) else "local"


def silent_for_s(transport: asyncio.Transport) -> float | None:
    """How long ago the kernel received data on this connection, whoever may have read it; None where it does not say.

    So an end can be judged that nobody here listens to: a spliced stream, or bytes that a blocked loop has not read yet.
    """
    info = _tcp_info(transport)
    return None if info is None else _number(info, _LAST_DATA_RECEIVED) / 1000


def unheard_for_s(transport: asyncio.Transport) -> float:
    """How long the other end has not acknowledged what is under way to it; 0.0 = nothing is, or the kernel does not say.

    An end that reads nothing acknowledges the probes of its closed window: it is heard.
    """
    info = _tcp_info(transport)
    return 0.0 if info is None or not _number(info, _UNACKNOWLEDGED) else _number(info, _LAST_ACK_RECEIVED) / 1000


def close_gently(transport: asyncio.Transport) -> None:
    """Let what is queued go out, then close. A peer that takes nothing at all for `DRAIN_S` is cut; a slow one is not."""
    left = transport.get_write_buffer_size()
    transport.close()
    if left:
        _watch_drain(transport, left)


def _tcp_info(transport: asyncio.Transport) -> bytes | None:
    sock = _tcp_socket(transport)
    if sock is None or transport.is_closing() or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK_RECEIVED + 4)
    except OSError:
        return None
    return info if len(info) >= _LAST_ACK_RECEIVED + 4 else None


def _number(info: bytes, offset: int) -> int:
    number: int = struct.unpack_from("=I", info, offset)[0]
    return number


def _tcp_socket(transport: asyncio.Transport) -> socket.socket | None:
    sock: socket.socket | None = transport.get_extra_info("socket")
    return sock if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6) else None


def _watch_drain(transport: asyncio.Transport, before: int) -> None:
    def look() -> None:
        left = transport.get_write_buffer_size()
        if left >= before:
            transport.abort()
        elif left:
            _watch_drain(transport, left)

    asyncio.get_running_loop().call_later(DRAIN_S, look)
