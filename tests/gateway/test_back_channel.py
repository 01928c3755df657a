"""The form in which a provider tells of a sign-out, and the answers that its standard has; and where a browser goes that signs out."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from libs.common import errors
from libs.common.contracts.messages import BackChannelLoggedOut, TokenRevoked
from libs.common.contracts.methods import BACK_CHANNEL_LOGOUT, REVOKE_TOKEN
from tests.gateway.support import Hub, real_monotonic

FORM = {"logout_token": "a.b.c"}
URLENCODED = "application/x-www-form-urlencoded"


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        yield running


async def tell(hub, form, content_type=URLENCODED, path="/v1/back-channel-logout/sso", address="10.0.0.1"):
    data = (form if isinstance(form, str) else urlencode(form)).encode()
    headers = {"Content-Type": content_type, "X-Forwarded-For": address}
    async with hub.request("POST", path, data=data, by=None, headers=headers) as response:
        return response, await response.text()


async def serve(hub, answer):
    def logout(_request):
        if isinstance(answer, Exception):
            raise answer
        return answer

    await hub.serve(BACK_CHANNEL_LOGOUT, logout)
    return hub.asked


async def test_what_identity_did_is_200_with_nothing_in_it_and_kept_nowhere(hub):
    asked = await serve(hub, BackChannelLoggedOut())
    response, text = await tell(hub, {**FORM, "unknown": "ignored"})
    assert (response.status, text, response.headers["Cache-Control"]) == (200, "", "no-store")
    assert (asked[0].provider, asked[0].logout_token, asked[0].client_address) == ("sso", "a.b.c", "10.0.0.1")


async def test_what_identity_refused_is_400_as_the_standard_has_it(hub):
    await serve(hub, BackChannelLoggedOut(error="invalid_request", description='not "accepted"'))
    response, text = await tell(hub, FORM)
    assert (response.status, response.headers["Cache-Control"]) == (400, "no-store")
    assert json.loads(text) == {"error": "invalid_request", "error_description": "not 'accepted'"}


@pytest.mark.parametrize(
    ("body", "content_type", "path"),
    [
        (json.dumps(FORM), "application/json", "sso"),
        (urlencode(FORM), "multipart/form-data; boundary=x", "sso"),
        (urlencode(FORM) + "&logout_token=d.e.f", URLENCODED, "sso"),
        ("&".join(f"x{number}=1" for number in range(50)), URLENCODED, "sso"),
        (urlencode(FORM) + "&pad=" + "x" * 70_000, URLENCODED, "sso"),
        (urlencode({"logout_token": "x" * 16_385}), URLENCODED, "sso"),
        ("é", URLENCODED, "sso"),
        ("logout_token=", URLENCODED, "sso"),
        ("", URLENCODED, "sso"),
        (urlencode(FORM), URLENCODED, "No%20Provider"),
        (urlencode(FORM), URLENCODED, "x" * 64),
    ],
)
async def test_what_is_no_notice_is_told_and_identity_is_not_asked(hub, body, content_type, path):
    asked = await serve(hub, BackChannelLoggedOut())
    response, text = await tell(hub, body, content_type, f"/v1/back-channel-logout/{path}")
    assert (response.status, json.loads(text)["error"]) == (400, "invalid_request")
    assert response.headers["Cache-Control"] == "no-store"
    assert not asked


async def test_a_hub_that_cannot_follow_now_says_that_it_failed(hub):
    await serve(hub, errors.Unavailable("the store has no leader"))
    response, text = await tell(hub, FORM)
    assert (response.status, json.loads(text)["error"]) == (400, "temporarily_unavailable")


async def test_another_way_to_ask_is_405(hub):
    async with hub.request("GET", "/v1/back-channel-logout/sso?logout_token=a.b.c", by=None) as response:
        assert response.status == 405


async def test_a_stranger_is_slowed_down_and_a_provider_that_signs_out_many_is_not(hub):
    most = hub.state.config.requests_per_minute
    await serve(hub, BackChannelLoggedOut())
    assert {(await tell(hub, FORM))[0].status for _ in range(most + 20)} == {200}
    statuses = [(await tell(hub, "", address="10.0.0.2"))[0].status for _ in range(most + 1)]
    assert statuses[:-1] == [400] * most
    assert statuses[-1] == 429
    # Others are not kept out.
    assert (await tell(hub, FORM))[0].status == 200


async def test_a_page_that_signs_out_is_told_where_to_go_and_the_way_back_is_never_its_own(hub):
    left = TokenRevoked(url="https://sso.example/end?state=s", state="s")
    await hub.serve(REVOKE_TOKEN, lambda _request: left)
    body = {"return_to": "https://evil.example/", "post_logout_redirect_uri": "https://evil.example/"}
    async with hub.request("POST", "/v1/logout?return_to=https://evil.example/", body) as response:
        assert await response.json(content_type=None) == {"url": left.url, "state": "s"}
        assert response.headers["Cache-Control"] == "no-store"
        assert response.cookies["__Host-herdsman-session"]["max-age"] == "0"
    assert hub.asked[-1].return_to == f"{hub.state.config.public_url}/ui/"
