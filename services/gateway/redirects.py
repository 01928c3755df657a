"""Sign-in on a provider's own page: to it and back. Each provider has its own address to come back to, so that answers are never mixed up.

What was begun lies sealed in a short-lived cookie of the browser. People see a page of the UI whatever happens, never a document for programs.
"""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from libs.common import errors
from libs.common.contracts.messages import RedirectBegin, RedirectFinish
from libs.common.contracts.methods import BEGIN_REDIRECT, FINISH_REDIRECT
from libs.common.observe import log
from libs.common.resources.meta import check_label
from services.gateway.call import Call
from services.gateway.session_cookie import check_own_page, set_session
from services.gateway.signin import SIGN_IN_S
from services.gateway.state import State

PENDING = "__Host-herdsman-sign-in"
PENDING_S = 600
PROBLEM = "__Host-herdsman-problem"
"""What the page tells once; a script reads it."""
HOME = "/ui/"
_MAX_PARAMETERS, _MAX_VALUE = 20, 4096


class Redirects:
    def __init__(self, state: State) -> None:
        self._state = state

    async def begin(self, call: Call) -> web.StreamResponse:
        """`?return_to=/ui/…`, `?link=1` for an account of the one who is signed in. Answers 303 to the provider."""
        try:
            provider = _checked(call.path("provider"))
            link = call.is_set("link")
            if link and call.known is None:
                raise errors.Unauthenticated("sign in first, then link your other account")
            if link:
                # A link from elsewhere comes with the session's cookie, and who is signed in at the provider may be the one who made that link: their
                # account there would open this person's here.
                check_own_page(call.request, "an account is linked from the hub's own page: go there and start again")
            request = RedirectBegin(
                provider=provider, redirect_uri=self._address(provider), return_to=call.query("return_to")[:2048] or HOME, session=True,
                description="browser", identity=call.envelope if link else "",
            )  # fmt: skip
            begun = await self._state.bus.request(
                BEGIN_REDIRECT.subject, request, BEGIN_REDIRECT.reply, timeout_s=SIGN_IN_S
            )
        except errors.HerdsmanError as exc:
            return _told(exc, call)
        response = _redirect(begun.url)
        response.set_cookie(
            PENDING, begun.pending, path="/", secure=True, httponly=True, samesite="Lax", max_age=PENDING_S
        )
        return response

    async def finish(self, call: Call) -> web.StreamResponse:
        """The provider sent the browser back. Answers 303 to the page that it wanted to see, signed in."""
        query = call.request.query
        try:
            provider = _checked(call.path("provider"))
            if (
                len(query) > _MAX_PARAMETERS
                or len(set(query)) != len(query)
                or any(len(v) > _MAX_VALUE for v in query.values())
            ):
                raise errors.BadRequest("the provider's answer is in no form that this hub knows")
            request = RedirectFinish(
                provider=provider, redirect_uri=self._address(provider), parameters=dict(query), client_address=call.address,
                pending=call.request.cookies.get(PENDING, "")[:8192], identity=call.envelope,
            )  # fmt: skip
            finished = await self._state.bus.request(
                FINISH_REDIRECT.subject, request, FINISH_REDIRECT.reply, timeout_s=SIGN_IN_S
            )
        except errors.HerdsmanError as exc:
            response = _told(exc, call)
        else:
            response = _redirect(finished.return_to or HOME)
            if finished.issued is not None:
                set_session(response, finished.issued)
        response.set_cookie(PENDING, "", path="/", secure=True, httponly=True, samesite="Lax", max_age=0)
        return response

    def _address(self, provider: str) -> str:
        return f"{self._state.config.public_url}/v1/callback/{quote(provider)}"


def _redirect(location: str) -> web.Response:
    return web.Response(
        status=303, headers={"Location": location, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    )


def _told(exc: errors.HerdsmanError, call: Call) -> web.Response:
    """Back to the sign-in page, which says what went wrong."""
    log.get("gateway").info(
        "redirect_sign_in_failed", reason=exc.reason, error=exc.message, client_address=call.address
    )
    response = _redirect(HOME)
    # Not in the address: whoever makes a link must not make the page say something.
    response.set_cookie(PROBLEM, quote(exc.message[:500]), path="/", secure=True, samesite="Lax", max_age=60)
    return response


def _checked(provider: str) -> str:
    try:
        return check_label(provider)
    except ValueError as exc:
        raise errors.NotFound("there is no such provider") from exc
