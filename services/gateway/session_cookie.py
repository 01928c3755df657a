"""The cookies of a browser's session: set at sign-in, cleared at sign-out. The front door reads them and lets none come back to here."""

from __future__ import annotations

from aiohttp import web

from libs.common import errors
from libs.common.access.browser_session import COOKIE, CSRF_COOKIE, csrf_token
from libs.common.access.token_text import parse_token_text
from libs.common.contracts.messages import IssuedToken
from services.gateway.bodies import JSON


def check_own_page(request: web.BaseRequest, what: str) -> None:
    """Only a page of the hub itself may begin this in a browser. Raises Denied with `what`, which says where to go.

    SameSite does not stop a neighbour under the same domain. Browsers say in `Sec-Fetch-Site` whose page asks; of one that does not, a body that is
    declared to be JSON is taken: no page of another origin sends that without asking the hub first, which allows none.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site != "same-origin" and not (site is None and request.content_type == JSON):
        raise errors.Denied(what)


def set_session(response: web.StreamResponse, issued: IssuedToken) -> None:
    """The session's cookie, which no script reads and no other site's request carries but a link, and the proof for our pages beside it.

    Both end with the browser.
    """
    token = parse_token_text(issued.token)
    if token is None:
        raise errors.Internal("identity issued a token of no known form")
    response.set_cookie(COOKIE, issued.token, path="/", secure=True, httponly=True, samesite="Lax")
    response.set_cookie(CSRF_COOKIE, csrf_token(token.secret), path="/", secure=True, samesite="Strict")


def clear_session(response: web.StreamResponse) -> None:
    """Nobody is signed in in this browser any more."""
    for name, hidden in ((COOKIE, True), (CSRF_COOKIE, False)):
        response.set_cookie(name, "", path="/", secure=True, httponly=hidden, samesite="Lax", max_age=0)
