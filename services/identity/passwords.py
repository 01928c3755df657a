"""Passwords: the policy, and Argon2id behind an async facade with its own small thread pool.

Used by `handlers` and `bootstrap`. `argon2` is imported here alone. Checking a password for nobody takes as long as for somebody.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import Type

from libs.common import errors
from libs.common.resources.providers import LocalSettings
from services.identity.common_passwords import is_common

T = TypeVar("T")

# 64 MiB and two passes: above OWASP's minimum (19 MiB, two passes) and the memory of RFC 9106's second choice; some 0.1-0.2 s of one
# core. One lane, because the pool already uses the cores. Two threads bound what a flood of sign-ins can take: 128 MiB, two cores.
MEMORY_KIB = 64 * 1024
PASSES = 2
LANES = 1
THREADS = 2
MAX_WAITING = 32
MAX_LENGTH = 1024
MIN_DISTINCT = 5


def check_policy(password: str, user: str, settings: LocalSettings | None = None) -> None:
    """Length beats composition rules (NIST SP 800-63B 5.1.1.2), and it must not be what everybody tries first. Raises Invalid.

    `settings`: those of the hub's own provider; None = the defaults, which count before there is one.
    """
    shortest = (settings or LocalSettings()).min_password_length
    why = ""
    if len(password) < shortest:
        why = f"must have at least {shortest} characters"
    elif len(password) > MAX_LENGTH:
        why = f"must have at most {MAX_LENGTH} characters"
    elif len(set(password)) < MIN_DISTINCT:
        why = f"must have at least {MIN_DISTINCT} different characters"
    elif password.casefold().strip() == user.casefold():
        why = "must not be the user name"
    elif is_common(password):
        why = "must not be a common password with something added: take several words that do not belong together"
    if why:
        raise errors.Invalid(f"the new password cannot be used: it {why}", causes=[errors.Cause("newPassword", why)])


class Passwords:
    """Hashes and checks. At most `MAX_WAITING` wait for a thread; more are refused at once, so that memory stays bounded."""

    def __init__(self, *, memory_kib: int = MEMORY_KIB, passes: int = PASSES, threads: int = THREADS) -> None:
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=LANES, type=Type.ID)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._limit = MAX_WAITING + threads
        self._inside = 0
        self._nobody = self._hasher.hash("the hash that is checked where there is no user or no password")

    async def hash(self, password: str) -> str:
        """The PHC string to store. Raises Unavailable when too many wait."""
        return await self._run(functools.partial(self._hasher.hash, password))

    async def verify(self, stored: str, password: str) -> bool:
        """Whether the password is right; an empty `stored` is never right and costs the same. Raises Unavailable."""
        matches = await self._run(functools.partial(self._verify, stored or self._nobody, password))
        return matches and bool(stored)

    def is_outdated(self, stored: str) -> bool:
        """Whether a stored hash was made with other parameters than today's: hash again at the next sign-in."""
        try:
            return self._hasher.check_needs_rehash(stored)
        except InvalidHashError:
            return True

    async def aclose(self) -> None:
        """End the threads after what runs."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except VerifyMismatchError:
            return False
        except (VerificationError, InvalidHashError) as exc:
            raise errors.Internal("a stored password hash cannot be read: set that user's password again") from exc

    async def _run(self, work: Callable[[], T]) -> T:
        if self._inside >= self._limit:
            raise errors.Unavailable("too many sign-ins at once: try again in a second", retry_after_s=1)
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._inside -= 1
