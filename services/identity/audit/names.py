"""Which of the names that people type are those of accounts: only such a name is written down. Any other may be a password, typed into the wrong field.

Follows the users, so an answer costs one look into memory, whether the name exists or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.observe import log
from libs.common.resources import codec
from libs.common.resources.identity import User
from libs.common.resources.providers import LOCAL
from services.identity.known_places import fold_name

if TYPE_CHECKING:
    from libs.common.store.informer import Change, Informer


class AccountNames:
    """By provider and name, as directories compare names: the name of the hub's user. A name that several have is that of the one who came last."""

    def __init__(self, users: Informer) -> None:
        self._users: dict[tuple[str, str], str] = {}
        self._of: dict[str, tuple[str, list[tuple[str, str]]]] = {}
        """By the user's name: its uid, and what it is known by."""
        self._by_uid: dict[str, str] = {}
        users.subscribe(self._changed, replay=True)

    def find(self, provider: str, typed: str) -> str:
        """The user that has an account of this name there; empty = nobody is known to have one."""
        return self._users.get((provider, fold_name(typed)), "")

    def name_of(self, uid: str) -> str:
        """The user with this uid; empty = there is none."""
        return self._by_uid.get(uid, "")

    def _changed(self, change: Change) -> None:
        plural, _, name = change.key.partition(".")
        if plural != "users":
            return
        uid, names = self._of.pop(name, ("", []))
        self._by_uid.pop(uid, None)
        for known in names:
            if self._users.get(known) == name:
                del self._users[known]
        if change.after is None:
            return
        try:
            user = codec.decode(User, change.after.value, change.after.revision)
        except (errors.HerdsmanError, ValueError, KeyError) as exc:
            log.get("identity").error("account_names_unreadable", user=name, error=str(exc))
            return
        names = list(dict.fromkeys((provider, fold_name(known)) for provider, known in _names(user)))
        self._of[name], self._by_uid[user.uid] = (user.uid, names), name
        for known in names:
            self._users[known] = name


def _names(user: User) -> Iterator[tuple[str, str]]:
    if user.private.password_hash or not user.status.identities:
        yield LOCAL, user.name
    for account in user.status.identities:
        # As directories take them: the whole, or what stands before the domain.
        whole = account.user_name
        yield from ((account.provider, name) for name in (whole, whole.rpartition("\\")[2].partition("@")[0]) if name)
    for place in user.private.places:
        # With this very name somebody came in.
        _, provider, typed = [*place.account.split("\n", 2), "", ""][:3]
        if provider and typed:
            yield provider, typed
