"""Which tokens each user has, by informer: small facts, so that nobody walks through all tokens of all people.

Used by `tokens` (the cap, revoking all) and `reconciler` (tokens of users that are gone).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from libs.common.resources import codec
from libs.common.resources.identity import Token

if TYPE_CHECKING:
    from libs.common.store.informer import Change, Informer


@dataclass(frozen=True, slots=True)
class TokenFact:
    name: str
    purpose: str
    expires_at: datetime
    provider: str = ""


class TokenIndex:
    """Follows an informer on tokens; own writes are noted at once, the informer confirms them."""

    def __init__(self, informer: Informer) -> None:
        self._by_user: dict[str, dict[str, TokenFact]] = {}
        self._stop = informer.subscribe(self._on_change, replay=True)

    def of(self, user: str) -> list[TokenFact]:
        """All tokens of a user name, expired ones too, in no order."""
        return list(self._by_user.get(user, {}).values())

    def users_of_provider(self, provider: str) -> list[str]:
        """Names of the users who hold a token that came from a sign-in there, in no order."""
        return [user for user, facts in self._by_user.items() if any(f.provider == provider for f in facts.values())]

    def note_added(self, token: Token) -> None:
        fact = TokenFact(token.name, token.spec.purpose, token.spec.expires_at, token.spec.provider)
        self._by_user.setdefault(token.spec.user, {})[token.name] = fact

    def note_removed(self, user: str, name: str) -> None:
        tokens = self._by_user.get(user, {})
        tokens.pop(name, None)
        if not tokens:
            self._by_user.pop(user, None)

    def close(self) -> None:
        self._stop()

    def _on_change(self, change: Change) -> None:
        if not change.key.startswith("tokens."):
            return
        token = codec.decode(Token, change.last.value, change.last.revision)
        if change.after is None:
            self.note_removed(token.spec.user, token.name)
        else:
            self.note_added(token)
