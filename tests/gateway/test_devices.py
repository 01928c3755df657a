"""Letting a machine in over HTTP: which page it is sent to, and what of a browser's sign-in reaches identity."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from libs.common.contracts import messages as m
from libs.common.contracts import methods
from tests.gateway.support import Hub, real_monotonic

BEGUN = m.DeviceBegun(
    device_code="secret", user_code="BCDF-GHJK", interval_s=5, expires_at=datetime(2026, 2, 2, tzinfo=UTC)
)
CALLBACK = {"port": 49152, "state": "s" * 43, "code_challenge": "c" * 43}


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        await running.serve(methods.BEGIN_DEVICE, lambda _request: BEGUN)
        yield running


@pytest.mark.parametrize(("browser", "place"), [(None, "#device"), (CALLBACK, "#login=BCDF-GHJK")])
async def test_a_machine_is_told_the_page_of_its_way_in(hub, browser, place):
    status, document = await hub.call("POST", "/v1/devices", {"description": "x", "browser": browser}, by=None)
    assert (status, document["verification_uri"]) == (200, f"https://hub.example:8443/ui/{place}")
    asked = hub.asked[-1]
    assert asked.browser == (None if browser is None else m.BrowserCallback(**browser))


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 22}, {"port": 65536}, {"port": "http://evil.example"}, {"state": ""}, {"state": "a&code=b" * 4},
        {"code_challenge": "plain"}, {"code_challenge": None},
    ],
)  # fmt: skip
async def test_an_address_to_come_back_to_can_only_be_a_port(hub, wrong):
    status, _ = await hub.call("POST", "/v1/devices", {"browser": {**CALLBACK, **wrong}}, by=None)
    assert status == 400
    assert hub.asked == []


async def test_the_answer_and_the_code_pass_through(hub):
    redirect = "http://127.0.0.1:49152/callback?code=c&state=s"
    await hub.serve(
        methods.ANSWER_DEVICE, lambda _request: m.DeviceShown(description="x", client_address="y", redirect=redirect)
    )
    await hub.serve(methods.FETCH_DEVICE, lambda _request: m.DeviceFetched())
    given = {"user_code": "BCDF-GHJK", "answer": "approve", "browser": True}
    status, document = await hub.call("POST", "/v1/devices/answer", given, by="ann")
    assert (status, document["redirect"]) == (200, redirect)
    assert (hub.asked[-1].browser, hub.asked[-1].answer) == (True, "approve")
    status, _ = await hub.call(
        "POST", "/v1/devices/fetch", {"device_code": "d", "code": "c", "code_verifier": "v"}, by=None
    )
    assert status == 202
    assert (hub.asked[-1].code, hub.asked[-1].code_verifier) == ("c", "v")
