"""The text of a token, `hm_<name>_<secret>`: made by identity, parsed by the front door.

Base32 in lower case: survives every copy and paste, and holds no `_`. The secret has 256 random bits, so its SHA-256 is stored
and no slow hash is needed.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field

PREFIX = "hm"
NAME_LENGTH = 10
_TEXT = re.compile(r"hm_([a-z2-7]{10})_([a-z2-7]{52})")


@dataclass(frozen=True, slots=True)
class TokenText:
    """One token. `secret` never prints."""

    name: str
    secret: str = field(repr=False)

    @property
    def secret_hash(self) -> str:
        return hash_secret(self.secret)

    def reveal(self) -> str:
        """The text that its owner is shown once."""
        return f"{PREFIX}_{self.name}_{self.secret}"


def make_token_text() -> TokenText:
    """A fresh random token."""
    return TokenText(_base32(secrets.token_bytes(8))[:NAME_LENGTH], _base32(secrets.token_bytes(32)))


def parse_token_text(text: str) -> TokenText | None:
    """The token in a text from outside, or None."""
    match = _TEXT.fullmatch(text)
    return TokenText(match[1], match[2]) if match else None


def hash_secret(secret: str) -> str:
    """SHA-256 in hex of the secret half as it is written."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()
