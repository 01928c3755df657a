"""Which tokens a user has: one record for each user's uid, so that nobody needs a copy of all tokens to find those of one.

identity writes it in one batch with the tokens it names (`services.identity.token_records`), the gateway lists by it. A fact says what a
token was when it was made; the token itself has the last word: a session that is used lives on beyond what its fact says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from libs.common import errors
from libs.common.resources.identity import Token
from libs.common.store.base import Entry, Store
from libs.common.store.record import pack_record, unpack_record

RECORDS = "tokensof"
PROGRESS = "tokenrecords.progress"
"""Up to where tokens were looked through for ones that no record names. Not there: that was never finished, and records are not complete."""


@dataclass(frozen=True, slots=True)
class TokenFact:
    """`expires` in Unix seconds; `session` as in the token's private part, the other fields as in its spec."""

    purpose: str
    expires: int
    provider: str = ""
    parent: str = ""
    session: str = ""


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """The tokens of one user by name. `revision` 0: there is no record, so the user has none."""

    uid: str
    user: str = ""
    tokens: Mapping[str, TokenFact] = field(default_factory=dict)
    revision: int = 0

    @property
    def key(self) -> str:
        return record_key(self.uid)


@dataclass(frozen=True, slots=True)
class Progress:
    """All tokens that were written up to `revision`, and all that were made before `began`, are in their records."""

    revision: int
    began: datetime
    entry_revision: int = 0


def record_key(uid: str) -> str:
    return f"{RECORDS}.{uid}"


def fact_of(token: Token) -> TokenFact:
    spec = token.spec
    expires = int(spec.expires_at.timestamp())
    return TokenFact(spec.purpose, expires, spec.provider, spec.parent, token.private.provider_session)


async def read_record(store: Store, uid: str, user: str = "") -> TokenRecord:
    """The record from the store itself; an empty one where there is none."""
    try:
        return decode_record(await store.get(record_key(uid)))
    except errors.NotFound:
        return TokenRecord(uid, user)


def encode_record(user: str, tokens: Mapping[str, TokenFact]) -> bytes:
    """Bytes to store, unlike those of any other write."""
    facts = {
        # Most have no session at a provider, and the bytes of those are what they always were.
        name: [fact.purpose, fact.expires, fact.provider, fact.parent, *([fact.session] if fact.session else [])]
        for name, fact in tokens.items()
    }
    return pack_record({"user": user, "tokens": facts})


def decode_record(entry: Entry) -> TokenRecord:
    """Raises Internal when the bytes are none of ours."""
    stored = unpack_record(entry)
    facts = {str(name): TokenFact(*fact[:5]) for name, fact in stored["tokens"].items()}
    return TokenRecord(entry.key.partition(".")[2], str(stored["user"]), facts, entry.revision)


async def read_progress(store: Store) -> Progress | None:
    try:
        entry = await store.get(PROGRESS)
    except errors.NotFound:
        return None
    stored = unpack_record(entry)
    return Progress(int(stored["revision"]), datetime.fromtimestamp(stored["began"], UTC), entry.revision)


def encode_progress(progress: Progress) -> bytes:
    return pack_record({"revision": progress.revision, "began": int(progress.began.timestamp())})
