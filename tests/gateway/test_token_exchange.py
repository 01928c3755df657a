"""The form of an exchange, as RFC 8693 and RFC 6749 have it; what identity says is passed on as it is."""

from __future__ import annotations

import json
from datetime import timedelta
from urllib.parse import urlencode

import pytest

from libs.common import errors
from libs.common.contracts.messages import IssuedToken, TokenExchanged
from libs.common.contracts.methods import EXCHANGE_TOKEN
from services.gateway.token_exchange import GRANT, SUBJECT_TYPES
from tests.gateway.support import Hub, real_monotonic

FORM = {"grant_type": GRANT, "subject_token": "a.b.c", "subject_token_type": SUBJECT_TYPES[0]}
URLENCODED = "application/x-www-form-urlencoded"


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        yield running


async def ask(hub, form, content_type=URLENCODED):
    data = (form if isinstance(form, str) else urlencode(form)).encode()
    async with hub.request("POST", "/v1/token", data=data, by=None, headers={"Content-Type": content_type}) as response:
        return response, json.loads(await response.text())


async def serve(hub, answer):
    def exchange(_request):
        if isinstance(answer, Exception):
            raise answer
        return answer

    await hub.serve(EXCHANGE_TOKEN, exchange)
    return hub.asked


async def test_a_token_is_answered_as_the_standard_has_it(hub, clock):
    issued = IssuedToken(token="hm_x_y", name="x", user="bot", expires_at=clock() + timedelta(seconds=900))
    asked = await serve(hub, TokenExchanged(issued=issued, expires_in_s=900))
    more = {"audience": "any", "resource": "shop", "scope": "", "unknown": "ignored"}
    response, document = await ask(hub, {**FORM, **more})
    assert response.status == 200
    assert document == {
        "access_token": "hm_x_y", "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "Bearer", "expires_in": 900,
    }  # fmt: skip
    assert response.headers["Cache-Control"] == "no-store"
    assert (asked[0].subject_token, asked[0].resource) == ("a.b.c", "shop")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"grant_type": None}, "invalid_request"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token": "x" * 16_385}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:jwt"}, "invalid_request"),
        ({"actor_token": "a.b.c"}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"resource": "x" * 254}, "invalid_request"),
    ],
)
async def test_what_cannot_be_done_is_told_and_identity_is_not_asked(hub, change, error):
    asked = await serve(hub, TokenExchanged())
    form = {name: value for name, value in {**FORM, **change}.items() if value is not None}
    response, document = await ask(hub, form)
    assert (response.status, document["error"]) == (400, error)
    assert document["error_description"]
    assert response.headers["Cache-Control"] == "no-store"
    assert not asked


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps(FORM), "application/json"),
        (urlencode(FORM) + "&subject_token=d.e.f", URLENCODED),
        ("&".join(f"x{number}=1" for number in range(50)), URLENCODED),
        (urlencode(FORM) + "&pad=" + "x" * 70_000, URLENCODED),
        ("é", URLENCODED),
        ("", URLENCODED),
    ],
)
async def test_a_body_that_is_no_plain_form_is_an_invalid_request(hub, body, content_type):
    asked = await serve(hub, TokenExchanged())
    response, document = await ask(hub, body, content_type)
    assert (response.status, document["error"]) == (400, "invalid_request")
    assert not asked


async def test_a_refusal_is_passed_on_as_it_is(hub):
    await serve(hub, TokenExchanged(error="invalid_grant", description='not "accepted"\nhere\\é'))
    response, document = await ask(hub, FORM)
    assert (response.status, document) == (400, {"error": "invalid_grant", "error_description": "not 'accepted'here"})


async def test_an_issuer_that_cannot_be_asked_is_no_refusal(hub):
    await serve(hub, errors.Unavailable("the issuer of this token cannot be asked for its keys at the moment"))
    response, document = await ask(hub, FORM)
    assert (response.status, document["error"]) == (503, "temporarily_unavailable")


async def test_who_asks_too_often_is_told_when_to_come_again(hub):
    await serve(hub, TokenExchanged(error="invalid_grant", description="no"))
    statuses = [(await ask(hub, FORM))[0] for _ in range(hub.state.config.requests_per_minute + 1)]
    assert [r.status for r in statuses[:-1]] == [400] * (len(statuses) - 1)
    assert statuses[-1].status == 429
    assert statuses[-1].headers["Retry-After"]
