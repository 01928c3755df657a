"""Captures: the bytes of a relayed session as they came, both directions, in a file. Written by `capture`, read by the decoders' tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Capture:
    """`head` names the protocols; `chunks` are (True for the client's, bytes)."""

    head: dict[str, str] = field(default_factory=dict)
    chunks: list[tuple[bool, bytes]] = field(default_factory=list)

    def write(self, file: Path) -> None:
        with file.open("wb") as target:
            target.write(json.dumps(self.head).encode() + b"\n")
            for from_client, data in self.chunks:
                target.write((b"C" if from_client else b"S") + len(data).to_bytes(4, "big") + data)

    @classmethod
    def read(cls, file: Path) -> Capture:
        head, _, rest = file.read_bytes().partition(b"\n")
        return cls(json.loads(head), list(_split(rest)))


def _split(data: bytes) -> Iterator[tuple[bool, bytes]]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 5], "big")
        yield data[at : at + 1] == b"C", data[at + 5 : at + 5 + size]
        at += 5 + size
