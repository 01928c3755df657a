"""What a provider of accounts does: the protocols that every type implements and the conformance suite checks.

A provider knows accounts, never users of the hub: `accounts` makes the one from the other. Every method has a deadline of its own and
raises families of `libs.common.errors` alone: Unauthenticated (never saying which part was wrong), Denied (the account is known and
refused: disabled, expired, not in an allowed organisation), Unavailable (the provider did not answer, or not in a form we know). What
a person is told is in the error; what only an administrator should see goes to the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from libs.common import errors

Kind = Literal["user", "group"]


class Gone(errors.Denied):
    """The account is no longer there, or is disabled: whoever holds it loses access."""


@dataclass(frozen=True, slots=True)
class Group:
    """`id` never changes and is never used again for another group."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Identity:
    """One account as its provider shows it now. `truncated`: a sentence for the person when groups are missing, else empty."""

    id: str
    user_name: str
    display_name: str = ""
    email: str = ""
    groups: tuple[Group, ...] = ()
    truncated: str = ""
    refresh_secret: str = field(default="", repr=False)
    """What `refresh` needs later, such as a refresh token; stored sealed. Empty = nothing."""
    session: str = field(default="", repr=False)
    """What the provider calls the sign-in that this came from (`sid`), where it says so."""
    sign_out_hint: str = field(default="", repr=False)
    """What signing out there goes best with, such as the ID token. Empty = nothing, or the settings don't want it."""


@dataclass(frozen=True, slots=True)
class Found:
    """One user or group that a search found."""

    kind: Kind
    id: str
    name: str
    display_name: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    found: tuple[Found, ...] = ()
    more: bool = False
    """Whether there is more than the limit."""


class Provider(Protocol):
    """What every type does. One object for one version of the settings; it is closed when they change."""

    async def test(self) -> None:
        """Whether the settings work: reach it, authenticate, read something. Raises Invalid or Unavailable, saying what to change."""
        ...

    async def refresh(self, account_id: str, refresh_secret: str) -> Identity:
        """The account as it is now. Raises Gone; Unavailable when nobody knows; Unauthenticated when only a new sign-in can tell."""
        ...

    async def search(self, text: str, kind: Kind | None, limit: int) -> Search:
        """Users and groups whose name begins with or holds `text`, at most `limit`. Raises Unavailable."""
        ...

    async def aclose(self) -> None:
        """Close connections and threads; calls under way may fail."""
        ...


@runtime_checkable
class PasswordProvider(Provider, Protocol):
    async def sign_in(self, user_name: str, password: str) -> Identity:
        """The account of that name and password. An empty password is refused before anything is asked."""
        ...


@dataclass(frozen=True, slots=True)
class Begun:
    """`secrets` (state, nonce, PKCE verifier) stay with the browser, sealed, until `finish` gets them back."""

    url: str
    secrets: Mapping[str, str] = field(repr=False)


@runtime_checkable
class RedirectProvider(Provider, Protocol):
    async def begin(self, redirect_uri: str, state: str) -> Begun:
        """The address to send the browser to."""
        ...

    async def finish(self, redirect_uri: str, parameters: Mapping[str, str], secrets: Mapping[str, str]) -> Identity:
        """The account, from the parameters that the provider sent the browser back with. `state` was checked by the caller."""
        ...

    async def end_session_url(self, hint: str, return_to: str, state: str) -> str:
        """Where to send a browser that signs out, so that it is signed out there too; empty = nowhere, or the settings don't want it.

        `hint`: the `sign_out_hint` of the sign-in, or empty. The provider sends the browser back to `return_to` with `state`.
        """
        ...


@dataclass(frozen=True, slots=True)
class SignedOut:
    """Who was signed out at the provider: that account, that session of it, or (both given) that session of that account."""

    account_id: str
    session: str
    token_id: str
    until: datetime
    """The notice counts until then, and once."""


@runtime_checkable
class TellsOfSignOuts(Protocol):
    async def read_sign_out(self, notice: str) -> SignedOut:
        """What a provider's notice says (a logout token). Raises Refused; Unavailable or Invalid where it cannot be checked now."""
        ...
