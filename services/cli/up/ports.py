"""Ports: the public one is a promise and must be free; those on loopback are chosen once and kept. Used by `run`."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Sequence
from pathlib import Path

from libs.common import errors
from services.cli.files import read_json, write_private


def check_public(host: str, port: int) -> None:
    """Raises Unavailable when the front door could not listen there."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise errors.Invalid(
            f'"{host}" is no address of this machine: choose another --host, such as 127.0.0.1 or 0.0.0.0'
        ) from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the front door does: the remains of closed connections are no obstacle, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            raise errors.Unavailable(_explain(host, port, error)) from error


def _explain(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: end the program that has it (ss -ltnp 'sport = :{port}'), or choose another with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"you may not listen on port {port}: choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine: choose another --host"
    return f"cannot listen on {host}:{port}: {error.strerror}"


def keep_ports(file: Path, names: Sequence[str]) -> dict[str, int]:
    """A loopback port for each name: the remembered one while it is free, else a new one, remembered."""
    remembered = read_json(file)
    chosen: dict[str, int] = {}
    with_sockets: list[socket.socket] = []
    try:
        for name in names:
            before = remembered.get(name)
            holder = _try_bind(before) if isinstance(before, int) else None
            holder = holder or _try_bind(0)
            assert holder is not None, "the kernel has no free port"
            # Held until all are chosen, so that no two names get one port.
            with_sockets.append(holder)
            chosen[name] = holder.getsockname()[1]
    finally:
        for holder in with_sockets:
            holder.close()
    if chosen != remembered:
        write_private(file, json.dumps(chosen, indent=2) + "\n")
    return chosen


def _try_bind(port: int) -> socket.socket | None:
    probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", port))
        probe.listen(1)
    except OSError:
        probe.close()
        return None
    return probe
