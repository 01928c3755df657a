"""The identity envelope: who calls, signed by the front door with Ed25519, verified by everybody behind it.

Form: `base64url(msgpack{"p": principal, "exp": unix seconds}) . base64url(signature)`. It lives one minute, so a captured one is
worth little, and it says who, never what they may.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from libs.common import errors
from libs.common.access.owed import explain
from libs.common.access.principal import Principal

HEADER = "Herdsman-Identity"
LIFETIME_S = 60
SKEW_S = 30

Now = Callable[[], datetime]


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Signer:
    """Held by the front door alone."""

    def __init__(self, key: Ed25519PrivateKey, now: Now) -> None:
        self._key = key
        self._now = now

    @classmethod
    def load(cls, file: Path, now: Now) -> Signer:
        """From a PEM file. Raises ValueError when it is no Ed25519 private key."""
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{file} does not hold an Ed25519 private key")
        return cls(key, now)

    def seal(self, principal: Principal) -> str:
        """An envelope that is good for `LIFETIME_S` seconds from now."""
        expires = int(self._now().timestamp()) + LIFETIME_S
        payload: bytes = msgpack.packb({"p": principal.model_dump(mode="json"), "exp": expires})
        return f"{_b64(payload)}.{_b64(self._key.sign(payload))}"

    def sign(self, purpose: bytes, data: bytes) -> bytes:
        """A signature for something else than an envelope. `purpose` is text of its own, so that neither passes for the other:
        an envelope's payload begins with a map's byte, never with a letter."""
        assert purpose[:1].isalpha()
        return self._key.sign(purpose + data)


class Verifier:
    """Held by the gateway and every owner."""

    def __init__(self, key: Ed25519PublicKey, now: Now) -> None:
        self._key = key
        self._now = now

    @classmethod
    def load(cls, file: Path, now: Now) -> Verifier:
        """From a PEM file. Raises ValueError when it is no Ed25519 public key."""
        key = serialization.load_pem_public_key(file.read_bytes())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError(f"{file} does not hold an Ed25519 public key")
        return cls(key, now)

    def open(self, envelope: str, *, owing: bool = False) -> Principal:
        """Who calls. Raises Unauthenticated for anything but a genuine, unexpired envelope.

        Raises Denied for whoever must change a password or set up a second factor first; `owing`: the caller of this looks at that.
        """
        try:
            payload_text, _, signature_text = envelope.partition(".")
            payload = _unb64(payload_text)
            self._key.verify(_unb64(signature_text), payload)
            content = msgpack.unpackb(payload)
            principal = Principal.model_validate(content["p"])
            expires = int(content["exp"])
        except (InvalidSignature, binascii.Error, ValueError, KeyError, TypeError, ValidationError) as exc:
            raise errors.Unauthenticated("the identity envelope is not genuine") from exc
        if expires + SKEW_S < self._now().timestamp():
            raise errors.Unauthenticated("the identity envelope has expired: check the clocks of the hub's machines")
        if principal.owes and not owing:
            raise errors.Denied(explain(principal.owes))
        return principal

    def is_genuine(self, purpose: bytes, data: bytes, signature: bytes) -> bool:
        """Whether `Signer.sign` made this."""
        try:
            self._key.verify(signature, purpose + data)
        except InvalidSignature:
            return False
        return True


def generate_key_pair() -> tuple[bytes, bytes]:
    """A fresh (private PEM, public PEM)."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public
