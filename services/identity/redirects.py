"""Signing in, or linking an account, on a provider's own page: `begin` sends the browser there, `finish` takes what it comes back with.

Nothing is kept here meanwhile: what was begun is sealed into a cookie of that very browser, so that an answer which somebody else's browser was led to is
worth nothing. Each is taken once: its state is remembered, by any replica, until it would have expired.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn
from urllib.parse import urlsplit

from libs.common import errors
from libs.common.bus.base import Message
from libs.common.contracts import messages as m
from libs.common.crypto.envelope import Verifier
from libs.common.crypto.sealed import KeyRing
from libs.common.observe import log
from libs.common.resources.identity import User
from libs.common.resources.meta import check_label
from libs.common.store.base import Store
from libs.common.store.objects import read
from services.identity.accounts import Accounts
from services.identity.audit.attempts import Attempt
from services.identity.handlers import Handlers
from services.identity.provider_sessions import ProviderSessions
from services.identity.providers.base import RedirectProvider
from services.identity.providers.running import Providers
from services.identity.sign_in import SignedIn

LIFETIME_S = 600
_PLACE = "redirect sign-in"
_ENDED = "this sign-in has ended, or was begun in another browser: begin again"


@dataclass(slots=True)
class Redirects:
    """What the two methods need; stateless."""

    store: Store
    ring: KeyRing
    providers: Providers
    accounts: Accounts
    handlers: Handlers
    verifier: Verifier
    now: Callable[[], datetime]
    sessions: ProviderSessions

    async def begin(self, request: m.RedirectBegin, _message: Message) -> m.RedirectBegun:
        """Where to send the browser. Raises NotFound, Denied, BadRequest, Unavailable."""
        check_return(request.return_to)
        linking = await self._caller(request.identity) if request.identity else None
        state = secrets.token_urlsafe(32)
        async with self.providers.use(_checked(request.provider)) as provider:
            if not isinstance(provider, RedirectProvider):
                raise errors.BadRequest(f'at "{request.provider}" people sign in with name and password')
            begun = await provider.begin(request.redirect_uri, state)
        expires_at = self.now() + timedelta(seconds=LIFETIME_S)
        pending = {
            "provider": request.provider, "state": state, "secrets": dict(begun.secrets), "return_to": request.return_to,
            "session": request.session, "description": request.description, "redirect_uri": request.redirect_uri,
            "link": [linking.name, linking.uid] if linking is not None else None, "exp": int(expires_at.timestamp()),
        }  # fmt: skip
        return m.RedirectBegun(
            url=begun.url, pending=self.ring.seal(json.dumps(pending), _PLACE), expires_at=expires_at
        )

    async def finish(self, request: m.RedirectFinish, _message: Message) -> m.RedirectFinished:
        """Let the person in. Raises Unauthenticated, Denied, Conflict (linking), Unavailable."""
        async with self.handlers.attempts.begin(
            "sign-in", address=request.client_address, provider=request.provider
        ) as attempt:
            pending = self._open(request)
            if pending["link"] is not None:
                attempt.action = "link-account"
                attempt.called_by(self.verifier.open(request.identity))
            return await self._finish(request, pending, attempt)

    async def _finish(self, request: m.RedirectFinish, pending: dict[str, Any], attempt: Attempt) -> m.RedirectFinished:
        await self._take(pending["state"])
        resource = self.providers.resource(request.provider)
        async with self.providers.use(_checked(request.provider)) as provider:
            if not isinstance(provider, RedirectProvider) or resource is None:
                raise errors.BadRequest("this provider has no page of its own to come back from")
            identity = await provider.finish(request.redirect_uri, request.parameters, pending["secrets"])
        if pending["link"] is not None:
            user = await self._caller(request.identity)
            if [user.name, user.uid] != pending["link"]:
                raise errors.Denied(
                    "another person is signed in now than the one who began to link the account: begin again"
                )
            attempt.is_about(user)
            linked = await self.accounts.link(user, resource, identity)
            mine = next(i for i in linked.status.identities if i.provider == resource.name)
            attempt.note = mine.principal_id
            return m.RedirectFinished(return_to=pending["return_to"], linked=mine.principal_id)
        attempt.typed = identity.user_name
        user = await self.accounts.sign_in(resource, identity)
        attempt.proved(user)
        account = next((i for i in user.status.identities if i.provider == resource.name), None)
        notices = (account.truncated,) if account is not None and account.truncated else ()
        # First whose session it is, then what comes of it: one that the provider ends is found.
        session = await self.sessions.remember(resource.name, identity.session, user.uid)
        issued = await self.handlers.let_in(
            SignedIn(user, resource.name, notices, session), session=pending["session"], description=pending["description"],
            address=request.client_address,
        )  # fmt: skip
        attempt.gave(issued.name)
        if identity.sign_out_hint and pending["session"]:
            await self.sessions.keep_hint(issued.name, identity.sign_out_hint)
        return m.RedirectFinished(issued=issued, return_to=pending["return_to"], session=pending["session"])

    def _open(self, request: m.RedirectFinish) -> dict[str, Any]:
        """What was begun, if this is its answer. Raises Unauthenticated without saying what does not fit; the log does."""
        try:
            pending: dict[str, Any] = json.loads(self.ring.open(request.pending, _PLACE))
        except errors.Internal as exc:
            self._refuse("the cookie is not one of ours", "foreign_cookie", exc)
        state = request.parameters.get("state", "")
        if not hmac.compare_digest(state.encode("utf-8"), str(pending["state"]).encode("utf-8")):
            self._refuse("the state is another", "wrong_state")
        if pending["exp"] < self.now().timestamp():
            self._refuse("it was begun too long ago", "expired")
        if (pending["provider"], pending["redirect_uri"]) != (request.provider, request.redirect_uri):
            self._refuse("it came back from another provider, or to another address", "wrong_provider")
        return pending

    @staticmethod
    def _refuse(reason: str, why: str, exc: BaseException | None = None) -> NoReturn:
        log.get("identity").warning("redirect_refused", reason=reason)
        raise errors.Unauthenticated(_ENDED, why=why) from exc

    async def _take(self, state: str) -> None:
        """Each state once. Raises Unauthenticated for one that was used."""
        key = f"signins.{hashlib.sha256(state.encode('utf-8')).hexdigest()[:40]}"
        try:
            await self.store.create(key, secrets.token_bytes(12), ttl_s=LIFETIME_S + 60)
        except errors.AlreadyExists as exc:
            log.get("identity").warning("redirect_replayed")
            raise errors.Unauthenticated(_ENDED, why="replayed") from exc

    async def _caller(self, identity: str) -> User:
        principal = self.verifier.open(identity)
        try:
            user = await read(self.store, User, principal.user)
        except errors.NotFound as exc:
            raise errors.Unauthenticated("your user is gone: sign in again") from exc
        if user.uid != principal.user_uid or principal.is_scoped or principal.read_only:
            raise errors.Denied("accounts are linked by the signed-in person, with an unrestricted sign-in")
        if principal.token:
            await self.handlers.read_sign_in(principal.token)
        return user


def check_return(path: str) -> None:
    """Only back to our own pages. Raises BadRequest."""
    parts = urlsplit(path)
    if path and (
        not path.startswith("/")
        or path.startswith("//")
        or "\\" in path
        or parts.scheme
        or parts.netloc
        or not path.isprintable()
    ):
        raise errors.BadRequest("return_to must be a path of this hub, such as /ui/")


def _checked(provider: str) -> str:
    try:
        return check_label(provider)
    except ValueError as exc:
        raise errors.BadRequest(f'"{provider[:63]}" is no provider: the name {exc}') from exc
