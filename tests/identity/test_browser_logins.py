"""Letting in a command line in the browser of its own machine: what the code is bound to, and where the browser may be sent."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from libs.common import errors
from libs.common.contracts import messages as m
from libs.common.resources.identity import Token
from services.identity.loopback import CODE_LIFETIME_S
from tests.identity.test_device_logins import MESSAGE, Site, site_of

VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
CALLBACK = {"port": 49152, "state": "s" * 43, "code_challenge": CHALLENGE}


async def begin(site: Site) -> m.DeviceBegun:
    request = m.DeviceBegin(
        description="herdsman on box", client_address="192.0.2.7", browser=m.BrowserCallback(**CALLBACK)
    )
    return await site.devices.begin(request, MESSAGE)


async def approve(site: Site, begun: m.DeviceBegun) -> str:
    """The code that the browser is sent back with."""
    shown = await site.answer(begun.user_code, "approve", browser=True)
    return parse_qs(urlsplit(shown.redirect).query)["code"][0]


async def fetch(site: Site, begun: m.DeviceBegun, code: str, verifier: str = VERIFIER) -> m.DeviceFetched:
    request = m.DeviceFetch(
        device_code=begun.device_code, client_address="192.0.2.7", code=code, code_verifier=verifier
    )
    return await site.devices.fetch(request, MESSAGE)


async def test_an_approval_takes_the_browser_to_its_own_machine_with_a_code_that_counts_once(clock):
    async with site_of(clock) as site:
        begun = await begin(site)
        looked = await site.answer(begun.user_code, browser=True)
        assert (looked.description, looked.client_address, looked.redirect) == ("herdsman on box", "192.0.2.7", "")
        assert (await fetch(site, begun, "")).issued is None
        shown = await site.answer(begun.user_code, "approve", browser=True)
        parts = urlsplit(shown.redirect)
        assert (parts.scheme, parts.netloc, parts.path) == ("http", "127.0.0.1:49152", "/callback")
        query = parse_qs(parts.query)
        assert query.keys() == {"code", "state"}
        assert query["state"] == [CALLBACK["state"]]
        (code,) = query["code"]
        stored = [entry.key + str(entry.value) for entry in site.hub.stores["identity"]._last.values()]
        assert not any(code in text for text in stored)
        issued = (await fetch(site, begun, code)).issued
        token = await site.hub.get(Token, issued.name)
        assert (issued.user, token.spec.purpose, token.spec.provider) == ("ada", "login", "local")
        with pytest.raises(errors.NotFound, match="begin again"):
            await fetch(site, begun, code)
        with pytest.raises(errors.NotFound):
            await site.answer(begun.user_code, "approve", browser=True)


@pytest.mark.parametrize("wrong", ["no code", "another code", "no verifier", "another verifier"])
async def test_a_wrong_code_or_verifier_is_refused_and_ends_it(clock, wrong):
    async with site_of(clock) as site:
        begun = await begin(site)
        code = await approve(site, begun)
        given = {
            "no code": ("", VERIFIER), "another code": (code[:-1] + "_", VERIFIER),
            "no verifier": (code, ""), "another verifier": (code, "w" * 64),
        }[wrong]  # fmt: skip
        with pytest.raises(errors.Denied, match="begin again"):
            await fetch(site, begun, *given)
        with pytest.raises(errors.NotFound):
            await fetch(site, begun, code)


@pytest.mark.parametrize(("late_s", "in_time"), [(CODE_LIFETIME_S - 1, True), (CODE_LIFETIME_S + 1, False)])
async def test_a_code_is_good_for_a_minute(clock, late_s, in_time):
    async with site_of(clock) as site:
        begun = await begin(site)
        code = await approve(site, begun)
        clock.forward(late_s)
        if in_time:
            assert (await fetch(site, begun, code)).issued.user == "ada"
        else:
            with pytest.raises(errors.Denied, match="too long"):
                await fetch(site, begun, code)


async def test_who_began_elsewhere_gets_nothing_by_asking_as_a_machine_without_a_browser_does(clock):
    async with site_of(clock) as site:
        begun = await begin(site)
        await approve(site, begun)
        with pytest.raises(errors.Denied):
            await site.fetch(begun.device_code)


async def test_a_code_answers_its_own_kind_of_question_alone(clock):
    """An address with the code of a machine elsewhere would let that in with one click, where the person has to type the code."""
    async with site_of(clock) as site:
        elsewhere, here = await site.begin(), await begin(site)
        for answer in ("", "approve", "deny"):
            with pytest.raises(errors.NotFound):
                await site.answer(elsewhere.user_code, answer, browser=True)
            with pytest.raises(errors.NotFound):
                await site.answer(here.user_code, answer)
        assert (await site.fetch(elsewhere.device_code)).issued is None


async def test_a_refusal_is_told_to_the_machine_at_once_and_lets_nobody_in(clock):
    async with site_of(clock) as site:
        begun = await begin(site)
        shown = await site.answer(begun.user_code, "deny", browser=True)
        assert shown.redirect == f"http://127.0.0.1:49152/callback?error=access_denied&state={CALLBACK['state']}"
        with pytest.raises(errors.Denied, match="refused"):
            await fetch(site, begun, "x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 0}, {"port": 80}, {"port": 1023}, {"port": 65536}, {"port": "1@evil.example"}, {"state": "short"}, {"state": "s" * 129},
        {"state": "s" * 40 + "&code=x"}, {"state": "s" * 40 + "\n"}, {"code_challenge": ""}, {"code_challenge": VERIFIER}, {"code_challenge": "é" * 43},
    ],
)  # fmt: skip
def test_a_callback_is_a_port_a_state_and_a_challenge_of_known_forms(wrong):
    with pytest.raises(ValidationError):
        m.BrowserCallback(**{**CALLBACK, **wrong})
