"""Secrets at rest: what is stored in NATS and must not be readable there. Envelope encryption with AES-256-GCM.

Each value has a data key of its own, wrapped by a key of the ring. The ring is a file of lines `<id> <32 bytes in base64>`: the first
key wraps, all unwrap, so a key is replaced by a new first line, and let go of when nothing is wrapped by it any more (`is_current`).
A sealed text is bound to the place it was sealed for: moved to another object or field it does not open.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.common import errors

_VERSION = "s1"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_WRAPPED_BYTES = _NONCE_BYTES + _KEY_BYTES + 16
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


class KeyRing:
    """Invariant: at least one key, the first seals. Never prints a key."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise ValueError("a key ring holds at least one key")
        for name, key in keys.items():
            if not _ID.fullmatch(name) or len(key) != _KEY_BYTES:
                raise ValueError(f'key "{name[:31]}": a key is a short lower-case id and {_KEY_BYTES} bytes')
        self._keys = dict(keys)
        self._first = next(iter(self._keys))

    @classmethod
    def load(cls, file: Path) -> KeyRing:
        """From a file. Raises ValueError, which names the line and never what is in it."""
        try:
            lines = file.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise ValueError(f"the key ring {file} cannot be read: {exc}") from exc
        keys: dict[str, bytes] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, _, text = line.strip().partition(" ")
            try:
                key = base64.b64decode(text.strip(), validate=True)
            except binascii.Error as exc:
                raise ValueError(f"the key ring {file}, line {number}: the key is not base64") from exc
            if name in keys or len(key) != _KEY_BYTES:
                raise ValueError(f"the key ring {file}, line {number}: every id once, {_KEY_BYTES} bytes each")
            keys[name] = key
        return cls(keys)

    def seal(self, secret: str, place: str) -> str:
        """The sealed text of `secret`, which opens for this `place` alone, e.g. `<uid>/clientSecret`."""
        data_key = AESGCM.generate_key(8 * _KEY_BYTES)
        wrapped = _encrypt(self._keys[self._first], data_key, self._first)
        sealed = _encrypt(data_key, secret.encode("utf-8"), place)
        return f"{_VERSION}.{self._first}.{base64.urlsafe_b64encode(wrapped + sealed).decode('ascii')}"

    def open(self, sealed: str, place: str) -> str:
        """The secret. Raises Internal when the key is missing, or the text is not what was sealed for this place."""
        version, _, rest = sealed.partition(".")
        name, _, text = rest.partition(".")
        key = self._keys.get(name)
        if version != _VERSION:
            raise errors.Internal("a stored secret is in no known form: was it written by a newer version?")
        if key is None:
            raise errors.Internal(f'a stored secret was sealed with the key "{name[:31]}", which the key ring lacks')
        try:
            data = base64.urlsafe_b64decode(text)
            data_key = _decrypt(key, data[:_WRAPPED_BYTES], name)
            return _decrypt(data_key, data[_WRAPPED_BYTES:], place).decode("utf-8")
        except (InvalidTag, binascii.Error, ValueError) as exc:
            raise errors.Internal(
                "a stored secret does not open: it was changed, or belongs to something else"
            ) from exc

    def is_current(self, sealed: str) -> bool:
        """Whether it was sealed with the first key."""
        return sealed.startswith(f"{_VERSION}.{self._first}.")


def render_ring(name: str) -> str:
    """The text of a ring with one fresh key."""
    return f"{name} {base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode('ascii')}\n"


def _encrypt(key: bytes, data: bytes, place: str) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, place.encode("utf-8"))


def _decrypt(key: bytes, data: bytes, place: str) -> bytes:
    return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], place.encode("utf-8"))
