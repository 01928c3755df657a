"""One-time codes (RFC 6238) for the hub's own accounts, and the recovery codes for whoever lost the device.

The seed is stored sealed. A code counts once: the step in which one was used is remembered, so that a code that was looked at over a shoulder is worth nothing.
Recovery codes are random texts of 80 bits, so their SHA-256 needs no slow hash. Used by `handlers.login` and `second_factor_handlers`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from libs.common import errors
from libs.common.crypto.sealed import KeyRing
from libs.common.resources.identity import User
from libs.common.store.base import Store
from libs.common.store.objects import modify

STEP_S, DIGITS, SEED_BYTES = 30, 6, 20
DRIFT_STEPS = 1
"""How far a phone's clock may be off, in steps, before and after."""
RECOVERY_CODES = 10
ACTIVE, PENDING = "totp", "totp-pending"
_CODE, _RECOVERY = re.compile(r"[0-9]{6}"), re.compile(r"[a-z2-7]{16}")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What the person's device is told once; a code of it makes it count."""

    secret: str
    uri: str


class SecondFactors:
    """Reads and writes the private part of users."""

    def __init__(self, store: Store, ring: KeyRing, now: Callable[[], datetime]) -> None:
        self._store = store
        self._ring = ring
        self._now = now

    async def begin(self, user: User, hub: str) -> Enrolment:
        """A fresh seed that does not count yet. Raises Conflict where there is a factor already."""
        if is_set(user):
            raise errors.Conflict("you have a second factor already: remove that first", kind="User", name=user.name)
        seed = secrets.token_bytes(SEED_BYTES)
        text = base64.b32encode(seed).decode("ascii").rstrip("=")
        sealed = self._ring.seal(text, _place(user, PENDING))

        def mutate(current: User) -> bool:
            if current.uid != user.uid or is_set(current):
                return False
            current.private.sealed[PENDING] = sealed
            return True

        await modify(self._store, User, user.name, mutate, now=self._now)
        label = quote(f"{hub}:{user.name}")
        uri = f"otpauth://totp/{label}?secret={text}&issuer={quote(hub)}&algorithm=SHA1&digits={DIGITS}&period={STEP_S}"
        return Enrolment(text, uri)

    async def confirm(self, user: User, code: str) -> list[str]:
        """The device shows the right codes: from now on one is asked for. Returns the recovery codes, the only time that they are seen."""
        sealed = user.private.sealed.get(PENDING)
        if sealed is None or is_set(user):
            raise errors.Conflict(
                "no second factor is waiting to be confirmed: begin again", kind="User", name=user.name
            )
        text = self._ring.open(sealed, _place(user, PENDING))
        step = find_step(text, code, self._now(), after=-1)
        if step is None:
            raise errors.Invalid(
                "that code is not right: check the clock of the device, and give the code that it shows now",
                why="second_factor_wrong",
            )
        codes = [_recovery_code() for _ in range(RECOVERY_CODES)]
        active = self._ring.seal(text, _place(user, ACTIVE))

        def mutate(current: User) -> bool:
            if current.uid != user.uid or current.private.sealed.get(PENDING) != sealed:
                return False
            del current.private.sealed[PENDING]
            current.private.sealed[ACTIVE] = active
            current.private.totp_step = step
            current.private.recovery_hashes = [_hash(code) for code in codes]
            current.status.second_factor = True
            return True

        stored = await modify(self._store, User, user.name, mutate, now=self._now)
        if not is_set(stored):
            raise errors.Conflict("another second factor was begun meanwhile: begin again", kind="User", name=user.name)
        return codes

    async def check(self, user: User, code: str) -> str:
        """Use up a code. Returns what to tell the person, or nothing. Raises SecondFactorNeeded without one, Unauthenticated for a wrong one."""
        if not is_set(user):
            return ""
        given = "".join(code.split()).replace("-", "").lower()
        if not given:
            raise errors.SecondFactorNeeded("give the one-time code that your device shows, or a recovery code")
        text = self._ring.open(user.private.sealed[ACTIVE], _place(user, ACTIVE))
        used: list[str] = []

        def mutate(current: User) -> bool:
            used.clear()
            if current.uid != user.uid or current.private.sealed.get(ACTIVE) != user.private.sealed[ACTIVE]:
                return False
            step = find_step(text, given, self._now(), after=current.private.totp_step)
            if step is not None:
                current.private.totp_step = step
                used.append("")
                return True
            left = [h for h in current.private.recovery_hashes if not hmac.compare_digest(h, _hash(given))]
            if not _RECOVERY.fullmatch(given) or len(left) == len(current.private.recovery_hashes):
                return False
            current.private.recovery_hashes = left
            used.append(f"you used a recovery code: {len(left)} are left")
            return True

        await modify(self._store, User, user.name, mutate, now=self._now)
        if not used:
            raise errors.Unauthenticated("the one-time code is wrong, or was used already", why="second_factor_wrong")
        return used[0]

    async def remove(self, user: User) -> None:
        """No code is asked for any more, and none that was begun counts."""

        def mutate(current: User) -> bool:
            if current.uid != user.uid or not (is_set(current) or PENDING in current.private.sealed):
                return False
            current.private.sealed.pop(ACTIVE, None)
            current.private.sealed.pop(PENDING, None)
            current.private.recovery_hashes = []
            current.private.totp_step = -1
            current.status.second_factor = False
            return True

        await modify(self._store, User, user.name, mutate, now=self._now)


def is_set(user: User) -> bool:
    return ACTIVE in user.private.sealed


def find_step(secret: str, code: str, now: datetime, *, after: int) -> int | None:
    """The step whose code this is, near now and later than `after`; None = no such."""
    if not _CODE.fullmatch(code):
        return None
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    generator = TOTP(key, DIGITS, SHA1(), STEP_S, enforce_key_length=False)  # noqa: S303 - what devices can do (RFC 6238 1.2); HMAC with it is sound
    present = int(now.timestamp()) // STEP_S
    found = None
    # All are compared, whichever it is: time says nothing.
    for step in range(present - DRIFT_STEPS, present + DRIFT_STEPS + 1):
        if hmac.compare_digest(generator.generate(step * STEP_S), code.encode("ascii")) and step > after:
            found = step
    return found


def _recovery_code() -> str:
    return base64.b32encode(secrets.token_bytes(10)).decode("ascii").lower()


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8")).hexdigest()


def _place(user: User, what: str) -> str:
    return f"{user.uid}/{what}"
