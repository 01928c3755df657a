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
    parent: str = ""


class TokenIndex:
    """Follows an informer on tokens; own writes are noted at once, the informer confirms them."""

    def __init__(self, informer: Informer) -> None:
        self._by_user: dict[str, dict[str, TokenFact]] = {}
        self._made_with: dict[str, set[str]] = {}
        self._stop = informer.subscribe(self._on_change, replay=True)

    def of(self, user: str) -> list[TokenFact]:
        """All tokens of a user name, expired ones too, in no order."""
        return list(self._by_user.get(user, {}).values())

    def users_of_provider(self, provider: str) -> list[str]:
        """Names of the users who hold a token that came from a sign-in there, in no order."""
        return [user for user, facts in self._by_user.items() if any(f.provider == provider for f in facts.values())]

    def made_with(self, name: str) -> list[str]:
        """Names of the tokens that were made with this one, in no order; also when it is gone."""
        return list(self._made_with.get(name, ()))

    def note_added(self, token: Token) -> None:
        spec = token.spec
        fact = TokenFact(token.name, spec.purpose, spec.expires_at, spec.provider, spec.parent)
        self._by_user.setdefault(spec.user, {})[token.name] = fact
        if spec.parent:
            self._made_with.setdefault(spec.parent, set()).add(token.name)

    def note_removed(self, user: str, name: str) -> None:
        tokens = self._by_user.get(user, {})
        fact = tokens.pop(name, None)
        if fact is not None and fact.parent in self._made_with:
            children = self._made_with[fact.parent]
            children.discard(name)
            if not children:
                del self._made_with[fact.parent]
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
