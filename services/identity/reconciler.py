"""Removes tokens that nobody should hold any more: expired ones, those of users that are gone or were made again, and
those whose parent is gone.

Keys are token names. It is a matter of tidiness, not of safety: the front door refuses such tokens by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.reconcile import DONE, After, Outcome
from libs.common.resources.identity import Token, User
from libs.common.resources.meta import check_label
from libs.common.store.base import Store
from libs.common.store.objects import Objects, read
from services.identity.token_index import TokenIndex
from services.identity.tokens import Tokens

if TYPE_CHECKING:
    from libs.common.store.informer import Change

LOOK_AGAIN_S = 3600.0
KEEP_EXPIRED_S = 60.0
"""Expired tokens stay a moment, so that an answer can still say `expired` and not `unknown`."""


class TokenReconciler:
    """One token at a time; `DONE` only when it is gone."""

    def __init__(self, store: Store, tokens: Tokens, known: Objects[Token], now: Callable[[], datetime]) -> None:
        self._store = store
        self._tokens = tokens
        self._known = known
        self._now = now

    async def reconcile(self, name: str) -> Outcome:
        token = self._known.get(name)
        if token is None:
            return DONE
        left_s = (token.spec.expires_at - self._now()).total_seconds() + KEEP_EXPIRED_S
        if left_s <= 0 or not await self._has_owner(token) or not await self._has_parent(token):
            await self._tokens.revoke(name)
            return DONE
        return After(min(left_s, LOOK_AGAIN_S))

    async def _has_owner(self, token: Token) -> bool:
        """Asks the store itself: a copy that is behind must not cost anybody their tokens."""
        try:
            user = await read(self._store, User, check_label(token.spec.user))
        except (errors.NotFound, ValueError):
            return False
        return user.uid == token.spec.user_uid

    async def _has_parent(self, token: Token) -> bool:
        """Asks the store itself, as for the owner. A token that was made with none has what it needs."""
        if not token.spec.parent:
            return True
        try:
            await read(self._store, Token, check_label(token.spec.parent))
        except (errors.NotFound, ValueError):
            return False
        return True


def keys_of_token(change: Change) -> Iterable[str]:
    return () if change.after is None else (change.key.partition(".")[2],)


def keys_of_children(index: TokenIndex) -> Callable[[Change], Iterable[str]]:
    """The tokens that were made with one that went away."""

    def keys(change: Change) -> Iterable[str]:
        return index.made_with(change.key.partition(".")[2]) if change.after is None else ()

    return keys


def keys_of_user(index: TokenIndex) -> Callable[[Change], Iterable[str]]:
    """All tokens of a user name that went away or came; a user may go and come again between two looks."""

    def keys(change: Change) -> Iterable[str]:
        user = change.key.partition(".")[2]
        went_or_came = change.after is None or change.before is None
        return [fact.name for fact in index.of(user)] if went_or_came else ()

    return keys
