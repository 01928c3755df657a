"""Sign-in, sign-out and passwords: JSON in, JSON out. Identity decides; this only counts attempts and passes them on."""

from __future__ import annotations

from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from libs.common import errors
from libs.common.contracts.messages import Empty, LoginRequest, PasswordChange, SessionExtend, TokenRevoke
from libs.common.contracts.methods import CHANGE_PASSWORD, EXTEND_SESSION, LOGIN, REVOKE_TOKEN, SIGN_IN_OPTIONS
from services.gateway.answers import answer
from services.gateway.bodies import check_object, read_body
from services.gateway.call import Call
from services.gateway.limits import RateLimit
from services.gateway.session_cookie import check_own_page, clear_session, set_session
from services.gateway.state import State

M = TypeVar("M", bound=BaseModel)
_NO_STORE = {"Cache-Control": "no-store"}
SIGN_IN_S = 30.0
"""A directory may be asked several times, each with a deadline of its own."""


class _Login(BaseModel):
    user: str = Field(min_length=1, max_length=253)
    password: str = Field(min_length=1, max_length=1024)
    description: str = Field(default="", max_length=256)
    provider: str = Field(default="local", min_length=1, max_length=63)
    session: bool = False
    one_time_code: str = Field(default="", max_length=64)


class _Password(BaseModel):
    user: str = Field(default="", max_length=253)
    current_password: str = Field(default="", max_length=1024)
    new_password: str = Field(max_length=1024)


class SignIn:
    def __init__(self, state: State) -> None:
        self._state = state
        self._attempts = RateLimit(state.config.login_per_minute, state.monotonic)

    async def login(self, call: Call) -> web.StreamResponse:
        """User and password → token. Raises Unauthenticated without saying what was wrong, TooManyRequests."""
        given = parse_json_body(_Login, check_object(await read_body(call.request)))
        if given.session:
            # Else a page of somebody else could sign this browser in as its maker, who then sees what is done here.
            check_own_page(call.request, "a browser signs in at the hub's own page: go there")
        # Folded, because directories take names in other letters for the same.
        self._attempts.check(f"{call.address} {given.provider} {given.user.casefold()}")
        request = LoginRequest(**given.model_dump(), client_address=call.address)
        issued = await self._state.bus.request(LOGIN.subject, request, LOGIN.reply, timeout_s=SIGN_IN_S)
        if not given.session:
            return answer(issued.model_dump(mode="json"), headers=_NO_STORE)
        response = answer(issued.model_dump(mode="json", exclude={"token"}), headers=_NO_STORE)
        set_session(response, issued)
        return response

    async def session(self, call: Call) -> web.StreamResponse:
        """Who the page's session is, how long it lasts, and what has to be done first. Asking is no use of it."""
        token = await self._state.tokens.document(call.principal.token)
        spec = token["spec"] if token is not None else {}
        owes = call.principal.owes
        shown = {
            "user": call.principal.user, "name": call.principal.token, "expires_at": spec.get("expiresAt", ""),
            "provider": spec.get("provider", ""),
            "must_change_password": "password" in owes, "must_set_second_factor": "secondFactor" in owes,
        }  # fmt: skip
        return answer(shown, headers=_NO_STORE)

    async def extend(self, call: Call) -> web.StreamResponse:
        """The page was used: its session goes on."""
        extended = await self._state.bus.request(
            EXTEND_SESSION.subject, SessionExtend(identity=self._envelope(call)), EXTEND_SESSION.reply
        )
        return answer(extended.model_dump(mode="json"), headers=_NO_STORE)

    async def options(self, call: Call) -> web.StreamResponse:
        """The ways to sign in, for a page that nobody has signed in to yet."""
        found = await self._state.bus.request(SIGN_IN_OPTIONS.subject, Empty(), SIGN_IN_OPTIONS.reply)
        return answer(found.model_dump(mode="json"), headers=_NO_STORE)

    async def logout(self, call: Call) -> web.StreamResponse:
        """Revokes the token that this call came with. Says where the browser can sign out at the provider, if that is wanted; back it comes to the page."""
        # Never from the request: it is the one address that is registered at the provider.
        request = TokenRevoke(identity=self._envelope(call), return_to=f"{self._state.config.public_url}/ui/")
        revoked = await self._state.bus.request(REVOKE_TOKEN.subject, request, REVOKE_TOKEN.reply, timeout_s=10)
        response = answer(revoked.model_dump(mode="json", exclude_defaults=True), headers=_NO_STORE)
        clear_session(response)
        return response

    async def password(self, call: Call) -> web.StreamResponse:
        """Sets a password: one's own with the current one, or another person's. Works when it must be changed first, too."""
        envelope = self._envelope(call)
        given = parse_json_body(_Password, check_object(await read_body(call.request)))
        user = given.user or call.principal.user
        self._attempts.check(f"{call.address} {user.casefold()}")
        request = PasswordChange(
            identity=envelope, user=user, current_password=given.current_password, new_password=given.new_password
        )
        await self._state.bus.request(CHANGE_PASSWORD.subject, request, CHANGE_PASSWORD.reply, timeout_s=10)
        return answer({})

    @staticmethod
    def _envelope(call: Call) -> str:
        if call.known is None:
            raise errors.Unauthenticated("you must be signed in: run `herdsman login`")
        return call.envelope


def parse_json_body(model: type[M], document: dict[str, Any]) -> M:
    """A plain JSON request. Raises BadRequest that names the field and never repeats a value: it may be a password."""
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors(include_input=False, include_url=False)
        )
        raise errors.BadRequest(f"the request can't be understood: {problems}") from None
