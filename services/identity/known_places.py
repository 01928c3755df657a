"""From where people signed in before: guesses of strangers elsewhere do not slow down who signs in from there again.

Kept with each user (`private.places`, the newest few) and followed by every replica, so a restart forgets nothing. `handlers.login` asks and notes.
"""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.observe import log
from libs.common.resources import codec
from libs.common.resources.identity import SignInPlace, User

if TYPE_CHECKING:
    from libs.common.store.informer import Change, Informer

MOST = 10
"""Places of one user that are remembered."""
AGE = timedelta(days=90)
_OVERLOOKED = ("Mn", "Me", "Cf")
_UNSEEN = "\u1806\ufffc"
"""Of other categories, and mapped to nothing by RFC 4518, too."""


def network_of(address: str) -> str:
    """What stands for an address: itself, or the /64 of IPv6, of which one subscriber has all."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)


def fold_name(typed: str) -> str:
    """What stands for a typed name: one text for all that a directory may take for the same account, or it could be guessed at under ever new names.

    After RFC 4518 (case, width, spaces, what is not seen), and without accents, which Active Directory overlooks.
    """
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", typed).casefold())
    return " ".join(
        "".join(c for c in letters if c not in _UNSEEN and unicodedata.category(c) not in _OVERLOOKED).split()
    )


def add_places(before: list[SignInPlace], new: list[SignInPlace], now: datetime) -> list[SignInPlace]:
    """The newest `MOST` of both, each place once, none older than `AGE`; newest first."""
    newest: dict[tuple[str, str], SignInPlace] = {}
    for place in sorted((*before, *new), key=lambda place: place.at):
        newest[(place.account, place.network)] = place
    kept = sorted(newest.values(), key=lambda place: place.at, reverse=True)
    return [place for place in kept if now - place.at < AGE][:MOST]


class KnownPlaces:
    """Holds the places of all users, some ten for each, from an informer; what was noted here counts at once."""

    def __init__(self, users: Informer, now: Callable[[], datetime]) -> None:
        self._now = now
        self._places: dict[str, dict[tuple[str, str], datetime]] = {}
        self._seen: dict[tuple[str, str], datetime] = {}
        users.subscribe(self._changed, replay=True)

    def has(self, account: str, address: str) -> bool:
        """Whether somebody signed in to this account from there, lately enough."""
        at = self._seen.get((account, network_of(address)))
        return at is not None and self._now() - at < AGE

    def note(self, user: str, account: str, address: str) -> SignInPlace:
        """Somebody signed in now. Returns what is to be stored."""
        place = SignInPlace(account=account[:320], network=network_of(address)[:64], at=self._now())
        self._put(user, [place, *(SignInPlace(account=a, network=n, at=at) for (a, n), at in self._places.get(user, {}).items())])  # fmt: skip
        return place

    def _changed(self, change: Change) -> None:
        plural, _, name = change.key.partition(".")
        if plural != "users":
            return
        places: list[SignInPlace] = []
        if change.after is not None:
            try:
                user = codec.decode(User, change.after.value, change.after.revision)
                places = user.private.places
            except (errors.HerdsmanError, ValueError, KeyError) as exc:
                log.get("identity").error("places_unreadable", user=name, error=str(exc))
        # What was noted here and is not written yet stays, unless the user is gone.
        pending = self._places.get(name, {}) if change.after is not None else {}
        self._put(name, [*places, *(SignInPlace(account=a, network=n, at=at) for (a, n), at in pending.items())])

    def _put(self, user: str, places: list[SignInPlace]) -> None:
        for known in self._places.pop(user, {}):
            self._seen.pop(known, None)
        kept = {(p.account, p.network): p.at for p in add_places([], places, self._now())}
        if kept:
            self._places[user] = kept
            self._seen.update(kept)
