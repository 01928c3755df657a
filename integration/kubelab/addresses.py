"""Ports and subnets of a cluster: chosen once, remembered in its folder, kept while nobody else took them.

A kubeconfig names a port, so a second start should find the same one; a free port is asked from the OS, never fixed.
Called by `run`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from integration.kubelab.paths import read_json, write_private
from libs.common.errors import Unavailable

SERVICE_RANGE = "10.96.0.0/16"
SERVICE_IP = "10.96.0.1"  # the first of the range is the API server's, by Kubernetes' own rule
_POOL = ipaddress.IPv4Network("10.192.0.0/10")
_SLOT_PREFIX = 23


def ensure_ports(remembered: Path, names: Sequence[str]) -> dict[str, int]:
    """A free loopback port for each name; the remembered one where it is still free."""
    known = read_json(remembered)
    ports: dict[str, int] = {}
    held: list[socket.socket] = []
    try:
        for name in names:
            listener = _listen(int(known.get(name, 0))) or _listen(0)
            if listener is None:
                raise Unavailable("the system has no free TCP port on 127.0.0.1")
            held.append(listener)  # all at once, so that no two names get the same port
            ports[name] = listener.getsockname()[1]
    finally:
        for listener in held:
            listener.close()
    if {**known, **ports} != known:
        write_private(remembered, json.dumps({**known, **ports}))
    return ports


def _listen(port: int) -> socket.socket | None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # As the servers themselves do it: connections of the last run that linger in TIME_WAIT don't make a port taken.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(1)
    except OSError:
        listener.close()
        return None
    return listener


@dataclass(frozen=True, slots=True)
class Subnet:
    """A full cluster's /23: the lower half for pods, the upper half for the link between this machine and the node."""

    network: ipaddress.IPv4Network

    @property
    def pods(self) -> str:
        return str(next(self.network.subnets(new_prefix=24)))

    @property
    def host_ip(self) -> str:
        """This machine as the node and its pods see it; the API server listens here."""
        return str(self.network[257])

    @property
    def node_ip(self) -> str:
        return str(self.network[258])


def ensure_subnet(remembered: Path, instance_id: str) -> Subnet:
    """A subnet derived from the cluster's id that no route of this machine overlaps; the remembered one if it can be."""
    slots = list(_slot_order(instance_id))
    if known := read_json(remembered).get("network"):
        slots.insert(0, ipaddress.IPv4Network(known))
    taken = _routes()
    for slot in slots:
        if not any(slot.overlaps(route) for route in taken):
            if str(slot) != known:
                write_private(remembered, json.dumps({"network": str(slot)}))
            return Subnet(slot)
    raise Unavailable(
        f"this machine has routes into every /{_SLOT_PREFIX} that Kubelab tried in {_POOL}: stop other clusters"
    )


def _slot_order(instance_id: str) -> list[ipaddress.IPv4Network]:
    """Where to look: a starting point from the id, then neighbours."""
    count = 2 ** (_SLOT_PREFIX - _POOL.prefixlen)
    start = int.from_bytes(hashlib.sha256(instance_id.encode()).digest()[:4], "big")
    size = 2 ** (32 - _SLOT_PREFIX)
    base = int(_POOL.network_address)
    return [ipaddress.IPv4Network((base + (start + step) % count * size, _SLOT_PREFIX)) for step in range(64)]


def _routes() -> list[ipaddress.IPv4Network]:
    """All routes of this machine but the default one (the kernel prints addresses as little-endian hex)."""
    routes = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[column]), "little") for column in (1, 7))
        if mask:
            routes.append(ipaddress.IPv4Network((address, bin(mask).count("1"))))
    return routes
