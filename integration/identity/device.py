"""The device with which a person proves who they are a second time, as a test holds it."""

from __future__ import annotations

import base64
import time

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP


def code_of(secret: str, *, steps: int = 0) -> str:
    """What the device shows, or will show in so many `steps` of 30 s: a code that was used does not count again.

    The hub takes the codes of one step around the present one, so one of 0 or 1 is still good when a step ends
    on the way; one of -1 would not be.
    """
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    device = TOTP(key, 6, SHA1(), 30, enforce_key_length=False)  # noqa: S303 - what devices do (RFC 6238 1.2)
    return device.generate(time.time() + 30 * steps).decode()
