"""`POST /v1/back-channel-logout/{provider}`: a provider says that somebody was signed out there (OpenID Connect Back-Channel Logout 1.0).

Form in; 200 or 400 out, as its section 2.8 has it. Identity decides. Nobody has signed in: what is refused is counted for each address, so that a
stranger is slowed down and a provider that signs out thousands one after the other is not.
"""

from __future__ import annotations

from aiohttp import web

from libs.common import errors
from libs.common.contracts.messages import BackChannelLogout
from libs.common.contracts.methods import BACK_CHANNEL_LOGOUT
from libs.common.resources.meta import check_label
from services.gateway.call import Call
from services.gateway.forms import HEADERS, MAX_TOKEN, Wrong, answer_problem, read_form
from services.gateway.limits import RateLimit
from services.gateway.state import State

LOGOUT_S = 20.0
"""An issuer may have to be asked for its metadata and its keys first."""


class BackChannelLogouts:
    def __init__(self, state: State) -> None:
        self._state = state
        self._refused = RateLimit(state.config.requests_per_minute, state.monotonic)

    async def logout(self, call: Call) -> web.StreamResponse:
        """200 also where nobody was signed in. Raises TooManyRequests."""
        self._refused.check(call.address)
        try:
            request = await _read(call)
            done = await self._state.bus.request(
                BACK_CHANNEL_LOGOUT.subject, request, BACK_CHANNEL_LOGOUT.reply, timeout_s=LOGOUT_S
            )
        except Wrong as exc:
            return answer_problem(400, exc.error, exc.description)
        except (errors.Unavailable, errors.Timeout) as exc:
            return answer_problem(400, "temporarily_unavailable", exc.message)
        if done.error:
            return answer_problem(400, done.error, done.description)
        self._refused.give_back(call.address)
        return web.Response(status=200, headers=HEADERS)


async def _read(call: Call) -> BackChannelLogout:
    """Raises Wrong."""
    form = await read_form(call)
    token = form.get("logout_token", "")
    if not token or len(token) > MAX_TOKEN:
        raise Wrong("invalid_request", f"logout_token is needed, of {MAX_TOKEN} bytes at most")
    try:
        provider = check_label(call.path("provider"))
    except ValueError as exc:
        raise Wrong("invalid_request", "there is no such provider") from exc
    return BackChannelLogout(provider=provider, logout_token=token, client_address=call.address)
