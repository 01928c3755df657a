"""Whose call it is that came through a balancer: the client's address out of `X-Forwarded-For`, believed only from proxies that the settings
name. `routes` asks before anything is decided, so that audit, sign-in throttling and the gateway all see the same address. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from libs.common.relay.head import RequestHead

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """Networks whose machines may say for whom they speak."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Raises ValueError for what is no network or address."""
        self._networks: list[Network] = [ipaddress.ip_network(text) for text in networks]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def find_client(self, peer: str, head: RequestHead) -> str:
        """The last address of the chain that no trusted proxy has: what stands before it was said by a stranger. `peer` is who dialled."""
        if not self._trusts(peer):
            return peer
        client = peer
        for value in reversed(head.values(b"x-forwarded-for")):
            for part in reversed(value.split(b",")):
                address = _parse(part)
                if address is None:
                    return client
                client = address
                if not self._trusts(client):
                    return client
        return client

    def _trusts(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False  # a Unix socket, or a name
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


def _parse(part: bytes) -> str | None:
    """An address, with or without port, in one spelling; None for anything else, such as `unknown`."""
    text = part.strip(b" \t").decode("ascii", "replace")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
