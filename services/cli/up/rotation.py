"""The hub's certificate authority is replaced in three steps, each of which leaves everybody connected. Used by `herdsman hub ca`.

start: a second authority is made and announced beside the first. switch: the server certificate comes from the second one; the
first is still announced. finish: the first is dropped. The front door follows the files by itself. What is signed and announced can
be read off the files, so a step that was cut off is simply done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common import errors
from libs.common.crypto import ca
from services.cli.files import write_private
from services.cli.up.layout import Layout

IDLE, ANNOUNCED, SWITCHED = "idle", "announced", "switched"


@dataclass(frozen=True, slots=True)
class ClusterTrust:
    """One registered cluster. `knows`: its agent trusts all that is announced now."""

    name: str
    connected: bool
    knows: bool


def step_of(layout: Layout) -> str:
    """Where the replacement stands. Raises NotFound when there is no hub in the folder."""
    if not layout.ca_file.exists():
        raise errors.NotFound(f"there is no hub in {layout.root}: give its folder with --data-dir")
    if layout.next_ca_file.exists():
        return ANNOUNCED
    return SWITCHED if layout.ca_file.read_bytes().count(b"-----BEGIN CERTIFICATE-----") > 1 else IDLE


def start(layout: Layout, now: datetime) -> None:
    """Make the next authority and announce it. Raises Conflict when one is announced already."""
    if step_of(layout) != IDLE:
        raise errors.Conflict("the certificate authority is being replaced already: see herdsman hub ca status")
    pair = ca.generate_ca(f"Herdsman CA {now:%Y-%m-%d %H:%M:%S}", now)
    write_private(layout.next_ca_key, pair.key)
    write_private(layout.next_ca_file, pair.certificate, 0o644)
    write_private(layout.ca_file, ca.join(layout.ca_file.read_bytes(), pair.certificate), 0o644)


def switch(layout: Layout, now: datetime) -> None:
    """Let the next authority sign: a new server certificate, and from now on all later ones."""
    if step_of(layout) != ANNOUNCED:
        raise errors.Conflict("no next certificate authority is announced: begin with herdsman hub ca start")
    following = ca.KeyPair(layout.next_ca_file.read_bytes(), layout.next_ca_key.read_bytes())
    server = ca.issue_server(following, ca.names_of(layout.server_certificate.read_bytes()), now)
    # The announcement before the certificate: nobody meets a certificate whose authority was not announced.
    write_private(layout.ca_file, ca.join(following.certificate, layout.ca_file.read_bytes()), 0o644)
    write_private(layout.ca_key, following.key)
    write_private(layout.server_key, server.key)
    write_private(layout.server_certificate, server.certificate, 0o644)
    layout.next_ca_key.unlink(missing_ok=True)
    layout.next_ca_file.unlink(missing_ok=True)


def heal(layout: Layout) -> None:
    """A switch that was cut off between the announcement and the key goes on: the authority that comes first must be able to sign."""
    if (
        layout.next_ca_file.exists()
        and layout.next_ca_key.exists()
        and ca.first_of(layout.ca_file.read_bytes()) == ca.first_of(layout.next_ca_file.read_bytes())
    ):
        write_private(layout.ca_key, layout.next_ca_key.read_bytes())


def finish(layout: Layout) -> None:
    """Announce the authority that signs and no other."""
    if step_of(layout) != SWITCHED:
        raise errors.Conflict("there is no old certificate authority to drop: see herdsman hub ca status")
    write_private(layout.ca_file, ca.first_of(layout.ca_file.read_bytes()), 0o644)


def judge(clusters: Iterable[Mapping[str, Any]], announced: str) -> list[ClusterTrust]:
    """The registered clusters, as the hub's API shows them, by whether they know what is announced."""
    found = []
    for document in clusters:
        status = document.get("status") or {}
        agent = status.get("agent") or {}
        if agent.get("publicKey"):
            knows = agent.get("trustedCa") == announced
            found.append(ClusterTrust(document["metadata"]["name"], status.get("phase") == "Active", knows))
    return found


def check_nobody_is_lost(clusters: Iterable[ClusterTrust], step: str) -> None:
    """Raises Conflict that names who would be lost."""
    lost = [c.name for c in clusters if not c.knows]
    if lost:
        shown = ", ".join(lost[:10]) + (f" and {len(lost) - 10} more" if len(lost) > 10 else "")
        raise errors.Conflict(
            f"{step} would lose {len(lost)} of the clusters, whose agents do not know the new certificate authority yet: {shown}; "
            "wait for them, or use --force: an agent that is lost so must be given the new CA and a fresh registration token"
        )
