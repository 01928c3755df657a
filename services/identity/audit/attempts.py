"""How handlers say what somebody tried and what became of it: `async with attempts.begin("sign-in", …) as attempt:` around the work.

What fails is written down with the cause that the error names (`why`, or its family's); nothing of it reaches the caller. Where a token was given, the caller gets
it only once the event is with a front door; else the token is taken away again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import uuid4

from libs.common import errors
from libs.common.access.principal import Principal
from libs.common.contracts.messages import IdentityEvent
from libs.common.observe import client, log
from libs.common.resources.identity import User
from services.identity.audit.names import AccountNames
from services.identity.known_places import fold_name, network_of

WHY: dict[type[errors.HerdsmanError], str] = {
    errors.Unauthenticated: "wrong_credentials", errors.SecondFactorNeeded: "second_factor_needed", errors.Denied: "not_allowed",
    errors.TooManyRequests: "throttled", errors.Unavailable: "unavailable", errors.Timeout: "unavailable", errors.NotFound: "not_found",
    errors.Conflict: "conflict", errors.AlreadyExists: "conflict", errors.BadRequest: "bad_request", errors.Invalid: "invalid",
}  # fmt: skip
"""By family, where whoever refused said nothing more."""


@dataclass(slots=True)
class Attempt:
    """What is known of it so far; handlers add what they learn. `typed` is never written down: an account of this name may be."""

    action: str
    address: str = ""
    provider: str = ""
    typed: str = ""
    reason: str = ""
    code: int = 200
    outcome: Literal["success", "failure"] = "success"
    by: Literal["person", "nobody", "hub"] = "nobody"
    actor: str = ""
    actor_uid: str = ""
    account: str = ""
    token: str = ""
    gives_token: bool = False
    resource: str = ""
    name: str = ""
    note: str = ""

    def called_by(self, principal: Principal) -> None:
        """Somebody with a token."""
        self.by, self.actor, self.actor_uid = "person", principal.user, principal.user_uid
        self.token = self.token or principal.token

    def is_about(self, user: User) -> None:
        self.account, self.resource, self.name = user.name, "users", user.name

    def proved(self, user: User) -> None:
        """Somebody proved to be this user."""
        self.is_about(user)
        self.by, self.actor, self.actor_uid = "person", user.name, user.uid

    def gave(self, token: str) -> None:
        """A token that its holder has not seen yet."""
        self.token, self.gives_token = token, True

    def fail(self, reason: str, code: int) -> None:
        self.outcome, self.reason, self.code = "failure", reason, code


class Takes(Protocol):
    """What takes events: `trail.Trail`."""

    def check_room(self) -> None: ...

    def note(self, event: IdentityEvent) -> None: ...

    def note_failure(self, event: IdentityEvent, network: str, typed: str) -> None: ...

    async def write(self, event: IdentityEvent) -> None: ...


class Switched(Protocol):
    """What can be enabled and disabled: a user, a provider."""

    @property
    def spec(self) -> Any: ...


def changed(kind: str, old: Switched | None, new: Switched | None) -> str:
    """What a write did to an object: create, enable, disable, delete, change; empty = nothing of its spec."""
    if old is None:
        return f"create-{kind}"
    if new is None:
        return f"delete-{kind}"
    if old.spec.enabled != new.spec.enabled:
        return f"enable-{kind}" if new.spec.enabled else f"disable-{kind}"
    return f"change-{kind}" if old.spec != new.spec else ""


@dataclass(frozen=True, slots=True)
class Attempts:
    """`withdraw` takes a token away that nobody has seen. `is_provider`: whether a provider of this name is set up."""

    trail: Takes
    names: AccountNames
    is_provider: Callable[[str], bool]
    withdraw: Callable[[str], Awaitable[Any]]
    now: Callable[[], datetime]

    @asynccontextmanager
    async def begin(
        self, action: str, *, address: str = "", provider: str = "", typed: str = "", caller: Principal | None = None, always: bool = False
    ) -> AsyncGenerator[Attempt]:  # fmt: skip
        """Raises Unavailable when it could not be written down; `always`: it is done nevertheless, for it takes rights away."""
        if not always:
            self.trail.check_room()
        attempt = Attempt(action, address, provider if self.is_provider(provider) else "", typed)
        if caller is not None:
            attempt.called_by(caller)
        try:
            yield attempt
        except errors.HerdsmanError as exc:
            why = exc.why or next((WHY[c] for c in type(exc).__mro__ if c in WHY), "failed")
            attempt.fail(why, exc.http_status)
            self._note(attempt)
            raise
        except Exception:
            attempt.fail("internal", 500)
            self._note(attempt)
            raise
        if attempt.outcome == "failure" or not attempt.gives_token:
            self._note(attempt)
            return
        try:
            await self.trail.write(self._event(attempt))
        except errors.Unavailable:
            try:
                await self.withdraw(attempt.token)
            except errors.HerdsmanError as exc:
                # Its secret has left nobody's hands; it expires.
                log.get("identity").warning("unseen_token_not_withdrawn", token=attempt.token, error=exc.message)
                raise
            self.note("revoke-token", "not_written_down", token=attempt.token, account=attempt.account)
            raise

    def note(
        self, action: str, reason: str = "", *, caller: Principal | None = None, actor: str = "", **facts: Any
    ) -> None:
        """Something that has happened; `facts` as in `Attempt`. Without a `caller`, or the name of one (`actor`), it was the hub."""
        noted = Attempt(action, reason=reason, by="person" if actor else "hub", actor=actor, **facts)
        if noted.account and not noted.resource:
            noted.resource, noted.name = "users", noted.account
        if caller is not None:
            noted.called_by(caller)
        self.trail.note(self._event(noted))

    def _note(self, attempt: Attempt) -> None:
        if attempt.outcome == "success":
            self.trail.note(self._event(attempt))
            return
        address = attempt.address or client.current().address
        typed = f"{attempt.provider}\n{fold_name(attempt.typed)}" if attempt.typed else attempt.account or attempt.actor
        self.trail.note_failure(self._event(attempt), network_of(address), typed)

    def _event(self, attempt: Attempt) -> IdentityEvent:
        if not attempt.account and attempt.typed:
            attempt.account = self.names.find(attempt.provider, attempt.typed)
            if attempt.account:
                attempt.resource, attempt.name = "users", attempt.account
        came = client.current()
        return IdentityEvent(
            id=str(uuid4()), at=self.now(), action=attempt.action, outcome=attempt.outcome, reason=attempt.reason, code=attempt.code,
            by=attempt.by, actor=attempt.actor[:253], actor_uid=attempt.actor_uid[:64], account=attempt.account[:253], provider=attempt.provider[:63],
            token=attempt.token[:63], resource=attempt.resource, name=attempt.name[:253],
            address=client.make(attempt.address, "").address or came.address, agent=came.agent, note=_shown(attempt.note),
        )  # fmt: skip


def _shown(note: str) -> str:
    """What a note quotes may come from a stranger: one that has no bytes, such as half of a surrogate pair, would be no event at all."""
    return "".join(c if c.isprintable() else "?" for c in note[:1024])
