"""Whose keys a credential's tokens are checked with: those that it holds itself, or its issuer's by discovery.

Credentials share a source only if issuer, authorities and keys are the same for both: what one credential says to trust is nothing to another.
The number of issuers that are remembered is bounded, and one that does not answer is not asked again for a while, whatever tokens come.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from libs.common.resources.federation import FederatedCredentialSpec
from services.identity.foreign_token import Refused

MOST = 200
TIMEOUT_S = 5.0
"""For each answer of an issuer."""


@dataclass(frozen=True, slots=True)
class SourceKey:
    """What makes two credentials' sources the same."""

    issuer: str
    ca: str
    jwks: str

    @classmethod
    def of(cls, spec: FederatedCredentialSpec) -> SourceKey:
        return cls(spec.issuer, spec.ca, spec.jwks)


class Source(Protocol):
    """`keys` has the two that there are."""

    async def decode(self, token: str) -> dict[str, Any]:
        """What one of its keys signed. Raises Refused, or Unavailable or Invalid without keys."""

    async def check_keys(self) -> None:
        """Whether there are keys. Raises Unavailable, Invalid."""

    async def aclose(self) -> None: ...


@dataclass(slots=True)
class _Held:
    source: Source
    users: int = 0
    forgotten: bool = False


class Sources:
    """The least recently used are forgotten beyond `most`, and closed when nobody waits for them any more."""

    def __init__(
        self,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        *,
        most: int = MOST,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._now = now
        self._monotonic = monotonic
        self._most = most
        self._timeout_s = timeout_s
        self._held: OrderedDict[SourceKey, _Held] = OrderedDict()

    async def decode(self, key: SourceKey, token: str) -> dict[str, Any]:
        """What this source signed. Raises Refused, or Unavailable or Invalid where there are no keys to check with."""
        held = self._find(key)
        held.users += 1
        try:
            return await held.source.decode(token)
        finally:
            held.users -= 1
            await self._close(held)
            while len(self._held) > self._most:
                await self._forget(next(iter(self._held)))

    async def keep(self, keys: Iterable[SourceKey]) -> None:
        """Forget all others: no credential names them any more."""
        wanted = set(keys)
        for key in [key for key in self._held if key not in wanted]:
            await self._forget(key)

    async def try_out(self, key: SourceKey) -> None:
        """Ask an issuer that nobody depends on yet. Raises Unavailable, Invalid, ValueError."""
        source = self._make(key)
        try:
            await source.check_keys()
        finally:
            await source.aclose()

    async def aclose(self) -> None:
        await self.keep(())

    def _find(self, key: SourceKey) -> _Held:
        held = self._held.get(key)
        if held is None:
            try:
                held = self._held[key] = _Held(self._make(key))
            except ValueError as exc:
                raise Refused(f"the credential's own keys are not good: {exc}") from exc
        self._held.move_to_end(key)
        return held

    async def _forget(self, key: SourceKey) -> None:
        held = self._held.pop(key)
        held.forgotten = True
        await self._close(held)

    @staticmethod
    async def _close(held: _Held) -> None:
        if held.forgotten and not held.users:
            await held.source.aclose()

    def _make(self, key: SourceKey) -> Source:
        from services.identity.federation.keys import make_source

        return make_source(key, self._now, self._monotonic, self._timeout_s)
