"""What one front-door process says of itself to the others: where its hop listens, and which clusters' agents are connected to it.

One entry for each process, not one for each cluster: a thousand clusters are one write every five seconds. Pure; `registry` writes and
follows the entries.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgpack

from libs.common import errors

PREFIX = "workers"
_VERSION = 1
_MAX_TEXT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Holder:
    """One process. `worker` is new at each of its starts, so an entry never speaks for a later one."""

    worker: str
    unix: str = ""
    """Path of its hop's socket, for processes of the same machine; its name is random, so whoever finds it there is on that machine."""
    address: str = ""
    """host:port of its hop over TLS, for other machines."""
    draining: bool = False
    """It goes away soon: whoever has another choice takes that."""
    load: int = 0
    """Calls under way in it."""
    clusters: Mapping[str, int] = field(default_factory=dict)
    """Uid of each cluster with reverse connections here, and how many."""

    @property
    def key(self) -> str:
        return f"{PREFIX}.{self.worker}"


def encode(holder: Holder, number: int) -> bytes:
    """The entry's bytes. `number` makes each write differ from the one before (`store.base`)."""
    uids = sorted(holder.clusters)
    return bytes(
        msgpack.packb(
            {
                "v": _VERSION, "worker": holder.worker, "unix": holder.unix, "address": holder.address, "draining": holder.draining,
                "load": holder.load, "n": number, "clusters": zlib.compress("\n".join(uids).encode("ascii"), 1),
                "counts": bytes(min(255, holder.clusters[uid]) for uid in uids),
            }
        )
    )  # fmt: skip


def decode(value: bytes) -> Holder:
    """The holder in an entry; what a later version added is ignored. Raises Invalid."""
    try:
        facts = msgpack.unpackb(value)
        if facts["v"] != _VERSION:
            raise errors.Invalid("the entry of a front-door process has a form that this version does not know")
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(facts["clusters"], _MAX_TEXT).decode("ascii")
        uids = text.split("\n") if text else []
        return Holder(
            str(facts["worker"]), str(facts["unix"]), str(facts["address"]), bool(facts["draining"]), int(facts["load"]),
            dict(zip(uids, facts["counts"], strict=True)),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, zlib.error, msgpack.UnpackException) as exc:
        raise errors.Invalid("the entry of a front-door process cannot be read") from exc
