"""What the hub remembers of people's sessions at their providers: whose each is, and what signing out there goes best with.

A session's name (`sid`) is kept as a digest alone, on the tokens that came from it and here; the other way round is needed by a provider that names
a session and not the person. Everything has a time to live, as long as a token can live that came from such a session.
"""

from __future__ import annotations

import contextlib
import hashlib

from libs.common import errors
from libs.common.crypto.sealed import KeyRing
from libs.common.store.base import Store
from libs.common.store.record import pack_record, unpack_record
from services.identity.tokens import Lifetimes


class ProviderSessions:
    """Stateless; all is in the store."""

    def __init__(self, store: Store, ring: KeyRing, lifetimes: Lifetimes) -> None:
        self._store = store
        self._ring = ring
        # A browser's session may let a command line in at its very end.
        self._known_s = lifetimes.session_s + lifetimes.login_s
        self._hint_s = lifetimes.session_s

    async def remember(self, provider: str, session: str, uid: str) -> str:
        """Whose session that is, before a token comes of it. Returns its digest; empty for an empty `session`."""
        if not session:
            return ""
        digest = digest_of(provider, session)
        key, value = _session_key(digest), pack_record({"uid": uid})
        try:
            await self._store.create(key, value, ttl_s=self._known_s)
        except errors.AlreadyExists:
            entry = await self._store.get(key)
            # Whoever comes between is the same person, in the same session, at the same moment.
            with contextlib.suppress(errors.Conflict):
                await self._store.update(key, value, entry.revision, ttl_s=self._known_s)
        return digest

    async def find(self, digest: str) -> str:
        """The uid of the user whose session that is; empty = nobody's here."""
        try:
            return str(unpack_record(await self._store.get(_session_key(digest)))["uid"])
        except errors.NotFound:
            return ""

    async def keep_hint(self, token: str, hint: str) -> None:
        """For the sign-out of this token; sealed."""
        sealed = self._ring.seal(hint, _place(token))
        await self._store.create(_hint_key(token), pack_record({"sealed": sealed}), ttl_s=self._hint_s)

    async def take_hint(self, token: str) -> str:
        """Once; empty where there is none, or none that opens."""
        try:
            entry = await self._store.get(_hint_key(token))
            await self._store.delete(entry.key, b"", entry.revision)
            return self._ring.open(str(unpack_record(entry)["sealed"]), _place(token))
        except (errors.NotFound, errors.Conflict, errors.Internal):
            return ""


def digest_of(provider: str, name: str) -> str:
    """What stands for a name that this provider gave."""
    return hashlib.sha256(f"{provider}\n{name}".encode()).hexdigest()[:40]


def _session_key(digest: str) -> str:
    return f"providersessions.{digest}"


def _hint_key(token: str) -> str:
    return f"signouthints.{token}"


def _place(token: str) -> str:
    return f"sign-out hint of {token}"
