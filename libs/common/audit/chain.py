"""Batches of audit lines, hashed one onto the other and signed: what a chain is, how it is written and read. Pure.

A chain belongs to one front-door process. Its lines (events, and records of the chain itself) are numbered from 0 and hashed one onto
the other: `h(n) = SHA-256(h(n-1) + line)`. A batch is some lines with a header that names the first number, the hash before and the hash
after; the header is signed with the front door's identity key. So whoever can write to the bus can neither change a line nor make one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

API_VERSION = "audit.herdsman.dev/v1"
RECORD, SEAL = "ChainRecord", "BatchSeal"
START_HASH = bytes(32)
MAX_LINES_BYTES = 8 * 1024 * 1024
"""What a batch may be unpacked to. Writers stay far below; more is not ours."""
_DOMAIN = b"herdsman audit batch v1\n"
_FIELDS = {"chain": str, "batch": int, "first": int, "count": int, "before": str, "after": str, "at": str, "size": int}


class BadBatch(ValueError):
    """Bytes that are no batch, or not what their header says."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a chain stands: the numbers of the next batch and line, and the hash of all lines so far."""

    batch: int = 0
    line: int = 0
    hash: bytes = START_HASH


@dataclass(frozen=True, slots=True)
class Seal:
    """The header of a batch as it was signed. `raw` are the very bytes."""

    chain: str
    batch: int
    first: int
    count: int
    before: bytes
    after: bytes
    at: str
    size: int
    raw: bytes
    signature: bytes

    def is_genuine(self, key: Ed25519PublicKey) -> bool:
        try:
            key.verify(self.signature, _DOMAIN + self.raw)
        except InvalidSignature:
            return False
        return True

    @property
    def next(self) -> Position:
        return Position(self.batch + 1, self.first + self.count, self.after)

    def to_line(self) -> bytes:
        """As one line of an export."""
        return render(
            {
                "kind": SEAL, "apiVersion": API_VERSION, "header": self.raw.decode("ascii"),
                "signature": base64.b64encode(self.signature).decode("ascii"),
            }
        )  # fmt: skip


def render(document: Any) -> bytes:
    """A document as the bytes of one line, without its end."""
    try:
        return orjson.dumps(document)
    except TypeError:
        # What only the slower one takes: integers beyond 64 bits, half a surrogate pair.
        return _encode(document).encode("utf-8", "replace")


_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def chain_hash(before: bytes, lines: Sequence[bytes]) -> bytes:
    sha = hashlib.sha256
    for line in lines:
        before = sha(before + line).digest()
    return before


def seal_batch(key: Ed25519PrivateKey, chain: str, position: Position, lines: Sequence[bytes], at: str) -> tuple[bytes, Position]:  # fmt: skip
    """The message for these lines, and the position after it."""
    content = b"\n".join(lines)
    after = chain_hash(position.hash, lines)
    header = render(
        {
            "chain": chain, "batch": position.batch, "first": position.line, "count": len(lines),
            "before": position.hash.hex(), "after": after.hex(), "at": at, "size": len(content),
        }
    )  # fmt: skip
    signature = base64.b64encode(key.sign(_DOMAIN + header))
    message = b"\n".join((header, signature, zlib.compress(content, 1)))
    return message, Position(position.batch + 1, position.line + len(lines), after)


def read_seal(message: bytes) -> tuple[Seal, bytes]:
    """The header and the packed rest, nothing verified. Raises BadBatch."""
    header, newline, rest = message.partition(b"\n")
    signature, second, packed = rest.partition(b"\n")
    if not newline or not second or len(header) > 4096:
        raise BadBatch("it has no header")
    return parse_seal(header, signature), packed


def parse_seal(header: bytes, signature: bytes) -> Seal:
    """Raises BadBatch."""
    try:
        document = json.loads(header)
        if not isinstance(document, dict) or any(
            not isinstance(document.get(k), t) or isinstance(document.get(k), bool) for k, t in _FIELDS.items()
        ):
            raise BadBatch("its header lacks a field")
        before, after = bytes.fromhex(document["before"]), bytes.fromhex(document["after"])
        return Seal(
            document["chain"], document["batch"], document["first"], document["count"], before, after, document["at"],
            document["size"], header, base64.b64decode(signature, validate=True),
        )  # fmt: skip
    except (ValueError, binascii.Error, RecursionError) as exc:
        raise BadBatch("its header can't be read") from exc


def read_batch(message: bytes) -> tuple[Seal, list[bytes]]:
    """The header and the lines, unpacked within bounds; no hash or signature verified. Raises BadBatch."""
    seal, packed = read_seal(message)
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(packed, MAX_LINES_BYTES)
    except zlib.error as exc:
        raise BadBatch("its content can't be unpacked") from exc
    if inflater.unconsumed_tail or not inflater.eof:
        raise BadBatch("its content is cut or too large")
    return seal, content.split(b"\n") if content else []


def load_public_key(pem: bytes) -> Ed25519PublicKey:
    """Raises ValueError."""
    key = serialization.load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("this is no Ed25519 public key")
    return key


def load_private_key(pem: bytes) -> Ed25519PrivateKey:
    """Raises ValueError."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("this is no Ed25519 private key")
    return key
