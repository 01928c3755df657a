"""What else the service keeps and reads beside its resources: registration secrets, public keys, and two kinds of internal records."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

import msgpack

from libs.common import errors
from libs.common.access.principal import USER_PREFIX
from libs.common.bus.accounts import is_user_public_key

FINALIZER = "management.herdsman.dev/detach"
"""Set at creation: the Cluster stays until its agent reported that it has removed everything."""
FORCE_DELETE = "management.herdsman.dev/force-delete"
"""Annotation "true" on a Cluster that is being deleted: forget it although its agent has not cleaned up."""
RESERVED_NAMES = frozenset({"herdsman"})
"""`herdsman` is the kubeconfig context of the hub itself."""

TOKEN_PREFIX = "hmr"  # noqa: S105 - a prefix, not a secret
_NAME_BYTES = 10
_SECRET_BYTES = 32


def role_name(role: str) -> str:
    """Name of the ClusterRole of a role template, and of what binds it."""
    return f"{USER_PREFIX}{role}"


@dataclass(frozen=True, slots=True)
class RegistrationSecret:
    """The text that a person sees once: `hmr_<name of the RegistrationToken>_<secret>`."""

    name: str
    secret: str

    def __repr__(self) -> str:
        return f"RegistrationSecret(name={self.name!r}, secret=***)"

    @property
    def text(self) -> str:
        return f"{TOKEN_PREFIX}_{self.name}_{self.secret}"

    @property
    def hash(self) -> str:
        """SHA-256 in hex: with 256 random bits no slow hash is needed."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def matches(self, secret_hash: str) -> bool:
        return bool(secret_hash) and hmac.compare_digest(self.hash, secret_hash)


def make_registration_secret() -> RegistrationSecret:
    name = base64.b32encode(secrets.token_bytes(_NAME_BYTES)).decode("ascii").lower()
    return RegistrationSecret(name, secrets.token_urlsafe(_SECRET_BYTES))


def parse_registration_secret(text: str) -> RegistrationSecret:
    """Raises Unauthenticated, in the same words as for a token that nobody issued."""
    prefix, _, rest = text.strip().partition("_")
    name, _, secret = rest.partition("_")
    if prefix != TOKEN_PREFIX or not secret or not name.isalnum() or not name.isascii() or name != name.lower():
        raise unknown_token()
    return RegistrationSecret(name, secret)


def unknown_token() -> errors.Unauthenticated:
    return errors.Unauthenticated("the registration token is not known: issue a fresh one")


def check_public_key(key: str) -> None:
    """A public NKEY of a user, check sum included. Raises Invalid."""
    if not is_user_public_key(key):
        raise errors.Invalid(
            "the public key is no NKEY of a user", causes=[errors.Cause("public_key", "is no NKEY of a user")]
        )


@dataclass(frozen=True, slots=True)
class Departed:
    """A cluster that a person had the hub forget before its agent cleaned up: should the agent come back, it is told to detach.

    Only such a record means that; a cluster that the hub merely does not know (a restored backup) is told nothing.
    """

    uid: str
    name: str
    public_key: str
    at: datetime

    @property
    def key(self) -> str:
        return departed_key(self.uid)

    def pack(self) -> bytes:
        return _pack({"uid": self.uid, "name": self.name, "public_key": self.public_key, "at": self.at.timestamp()})


@dataclass(frozen=True, slots=True)
class Revocation:
    """A public key that must not speak any more. Kept until the last JWT that was made for it has expired."""

    public_key: str
    at: datetime

    @property
    def key(self) -> str:
        return revocation_key(self.public_key)

    def pack(self) -> bytes:
        return _pack({"public_key": self.public_key, "at": self.at.timestamp()})


DEPARTED = "departed"
REVOCATIONS = "revocations"


def departed_key(uid: str) -> str:
    return f"{DEPARTED}.{uid}"


def revocation_key(public_key: str) -> str:
    return f"{REVOCATIONS}.{public_key.lower()}"


def parse_departed(value: bytes) -> Departed:
    content = msgpack.unpackb(value)
    return Departed(content["uid"], content["name"], content["public_key"], datetime.fromtimestamp(content["at"], UTC))


def parse_revocation(value: bytes) -> Revocation:
    content = msgpack.unpackb(value)
    return Revocation(content["public_key"], datetime.fromtimestamp(content["at"], UTC))


def _pack(content: dict[str, object]) -> bytes:
    # `op` is what the store compares when the answer to a write was lost.
    packed: bytes = msgpack.packb({"v": 1, "op": secrets.token_hex(12), **content})
    return packed
