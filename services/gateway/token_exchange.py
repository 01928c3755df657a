"""`POST /v1/token`: a workload's token for one of the hub, as RFC 8693 has it. Form in, JSON out, errors as RFC 6749 5.2 names them.

Identity decides; here is only understood what was asked. Nobody has signed in, so no client is authenticated either.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from libs.common import errors
from libs.common.contracts.messages import TokenExchange
from libs.common.contracts.methods import EXCHANGE_TOKEN
from services.gateway.answers import answer
from services.gateway.call import Call
from services.gateway.forms import HEADERS, MAX_TOKEN, Wrong, answer_problem, read_form
from services.gateway.state import State

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
SUBJECT_TYPES = ("urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token")
MAX_NAME = 253
EXCHANGE_S = 15.0
"""An issuer may have to be asked for its metadata and its keys first."""
_REPEATABLE = ("audience",)


class TokenExchanges:
    def __init__(self, state: State) -> None:
        self._state = state

    async def exchange(self, call: Call) -> web.StreamResponse:
        """200 with a token, 400 with what was wrong, 503 when the issuer can't be asked for its keys."""
        try:
            request = _understand(await read_form(call, _REPEATABLE), call.address)
            exchanged = await self._state.bus.request(
                EXCHANGE_TOKEN.subject, request, EXCHANGE_TOKEN.reply, timeout_s=EXCHANGE_S
            )
            if exchanged.issued is None:
                raise Wrong(exchanged.error or "invalid_grant", exchanged.description)
        except Wrong as exc:
            return answer_problem(400, exc.error, exc.description)
        except (errors.Unavailable, errors.Timeout) as exc:
            return answer_problem(503, "temporarily_unavailable", exc.message)
        document = {
            "access_token": exchanged.issued.token, "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer",
            "expires_in": exchanged.expires_in_s,
        }  # fmt: skip
        return answer(document, headers=HEADERS)


def _understand(form: Mapping[str, str], address: str) -> TokenExchange:
    """Raises Wrong."""
    grant, kind = form.get("grant_type"), form.get("subject_token_type")
    if grant is None:
        raise Wrong("invalid_request", "grant_type is missing")
    if grant != GRANT:
        raise Wrong("unsupported_grant_type", f"the one grant_type here is {GRANT}")
    token = form.get("subject_token", "")
    if not token or kind is None:
        raise Wrong("invalid_request", "subject_token and subject_token_type are needed")
    if kind not in SUBJECT_TYPES:
        raise Wrong("invalid_request", f"subject_token_type must be {' or '.join(SUBJECT_TYPES)}")
    if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
        raise Wrong("invalid_request", f"the one requested_token_type here is {ACCESS_TOKEN}")
    if "actor_token" in form or "actor_token_type" in form:
        raise Wrong("invalid_request", "nobody can act for a workload here: leave actor_token out")
    if "scope" in form:
        raise Wrong("invalid_scope", "scopes are not used here: the credential says what the token is good for")
    if len(token) > MAX_TOKEN:
        raise Wrong("invalid_request", f"subject_token is longer than {MAX_TOKEN} bytes")
    resource = form.get("resource", "")
    if len(resource) > MAX_NAME:
        raise Wrong("invalid_request", "resource is the name of a FederatedCredential")
    return TokenExchange(subject_token=token, resource=resource, client_address=address)
