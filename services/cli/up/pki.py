"""The hub's certificate authority and server certificate in the data folder: made once, renewed in time. Used by `run`."""

from __future__ import annotations

import ipaddress
import socket
from datetime import datetime

from libs.common import errors
from libs.common.crypto import ca
from services.cli.files import write_private
from services.cli.up import rotation
from services.cli.up.layout import Layout

_ELSEWHERE = {socket.AF_INET: ("203.0.113.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}
"""Addresses that are nobody's (RFC 5737, RFC 3849), only to ask the routing table."""


def server_names(host: str) -> list[str]:
    """What the certificate must name: loopback, this machine's name, and the address to listen on when it is a certain one."""
    names = ["localhost", "127.0.0.1", "::1"]
    machine = socket.gethostname()
    if machine and machine.isascii():
        names.append(machine.lower())
    try:
        wildcard = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        wildcard = False
    if wildcard:
        names += _own_addresses()
    else:
        names.append(host)
    return list(dict.fromkeys(names))


def _own_addresses() -> list[str]:
    """Addresses under which other machines may reach this one: those that its name resolves to, and those it speaks from."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except socket.gaierror:
        found = []
    resolved = [str(address[4][0]).partition("%")[0] for address in found]
    return [*resolved, *filter(None, (_outgoing_address(family) for family in _ELSEWHERE))]


def _outgoing_address(family: socket.AddressFamily) -> str:
    """The address that this machine uses towards others, "" when it has no way to any. Nothing is sent."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE[family])
        except OSError:
            return ""
        return str(probe.getsockname()[0]).partition("%")[0]


def public_host(host: str) -> str:
    """What the public URL names: a certain address as it is. Else this machine's full name, or its address where its name is
    a short one, which other machines, and pods above all, can rarely resolve."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return f"[{host}]" if address.version == 6 else host
    name = socket.gethostname().lower()
    if "." in name:
        return name
    found = _outgoing_address(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
    return (f"[{found}]" if ":" in found else found) or name


def ensure_certificates(layout: Layout, host: str, now: datetime) -> str:
    """Make what is missing and renew what ends soon. Returns why the server certificate is new, "" if it is not."""
    authority = _ensure_authority(layout, now)
    names = server_names(host)
    reason = "it is the first"
    if layout.server_certificate.exists() and layout.server_key.exists():
        reason = ca.needs_renewal(layout.server_certificate.read_bytes(), authority.certificate, names, now)
    if reason:
        pair = ca.issue_server(authority, names, now)
        # The key first: a cut between the two leaves a pair that does not match, which the next start finds and replaces.
        layout.server_certificate.unlink(missing_ok=True)
        write_private(layout.server_key, pair.key)
        write_private(layout.server_certificate, pair.certificate, 0o644)
    return reason


def _ensure_authority(layout: Layout, now: datetime) -> ca.KeyPair:
    if layout.ca_file.exists() and layout.ca_key.exists():
        rotation.heal(layout)
        pair = ca.KeyPair(layout.ca_file.read_bytes(), layout.ca_key.read_bytes())
        try:
            ends = ca.expires_at(pair.certificate)
        except ValueError as error:
            raise errors.Invalid(
                f"{layout.ca_file} is not a certificate: restore it from a backup; every agent and client trusts the old one"
            ) from error
        if ends > now:
            return pair
        raise errors.Invalid(
            f"the hub's CA ended on {ends:%Y-%m-%d}: move {layout.pki} away, start again, and give everybody the new CA"
        )
    if layout.ca_file.exists() != layout.ca_key.exists():
        raise errors.Invalid(
            f"half of the hub's CA is missing in {layout.pki}: restore ca.crt and ca.key from a backup, or remove both"
        )
    pair = ca.generate_ca("Herdsman CA", now)
    write_private(layout.ca_key, pair.key)
    write_private(layout.ca_file, pair.certificate, 0o644)
    return pair
