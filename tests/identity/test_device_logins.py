from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from libs.common import errors
from libs.common.contracts import messages as m
from libs.common.resources.identity import Token
from services.identity.device_logins import DeviceLogins
from services.identity.throttle import Throttle
from tests.identity.service import ADA, MESSAGE, PASSWORD, running


class Site:
    def __init__(self, service) -> None:
        self.service, self.hub = service, service.hub
        store = self.hub.stores["identity"]
        self.devices = DeviceLogins(store, service.handlers, self.hub.verifier, Throttle(lambda: 0.0), self.hub.now)
        self.token = ""

    async def begin(self) -> m.DeviceBegun:
        return await self.devices.begin(
            m.DeviceBegin(description="herdsman on box", client_address="192.0.2.7"), MESSAGE
        )

    async def answer(self, code: str, answer: str = "", who=ADA, browser=False, **more) -> m.DeviceShown:
        if not self.token:
            self.token = (await self.service.login()).name
        envelope = self.hub.envelope(who, token=self.token, **more)
        asked = m.DeviceAnswer(identity=envelope, user_code=code, answer=answer, browser=browser)
        return await self.devices.look(asked, MESSAGE)

    async def fetch(self, code: str) -> m.DeviceFetched:
        return await self.devices.fetch(m.DeviceFetch(device_code=code, client_address="192.0.2.7"), MESSAGE)


@asynccontextmanager
async def site_of(clock):
    async with running(clock) as service:
        yield Site(service)


async def test_a_person_sees_what_asks_and_lets_it_in_once(clock):
    async with site_of(clock) as site:
        begun = await site.begin()
        assert (await site.fetch(begun.device_code)).issued is None
        shown = await site.answer(begun.user_code.lower().replace("-", " "))
        assert (shown.description, shown.client_address) == ("herdsman on box", "192.0.2.7")
        await site.answer(begun.user_code, "approve")
        issued = (await site.fetch(begun.device_code)).issued
        token = await site.hub.get(Token, issued.name)
        assert (issued.user, token.spec.purpose, token.spec.provider) == ("ada", "login", "local")
        assert site.service.trail.told == [
            ("sign-in", "success", "", "ada"),
            ("look-at-device", "success", "", "ada"),
            ("answer-device", "success", "approved", "ada"),
            ("sign-in", "success", "device_code", "ada"),
        ]
        assert (site.service.trail.events[-1].address, site.service.trail.events[-1].token) == (
            "192.0.2.7",
            issued.name,
        )
        with pytest.raises(errors.NotFound, match="begin again"):
            await site.fetch(begun.device_code)
        with pytest.raises(errors.NotFound):
            await site.answer(begun.user_code, "approve")


async def test_who_must_change_a_password_first_lets_nobody_in(clock):
    async with site_of(clock) as site:
        begun = await site.begin()
        with pytest.raises(errors.Denied, match="nothing else is allowed"):
            await site.answer(begun.user_code, "approve", owes=["password"])
        assert (await site.fetch(begun.device_code)).issued is None


@pytest.mark.parametrize("purpose", ["api", "kubeconfig", "exec"])
async def test_a_token_that_is_no_sign_in_does_not_become_one(clock, purpose):
    async with site_of(clock) as site:
        signed_in = (await site.service.login()).name
        site.token = (await site.service.issue(ADA, token=signed_in, purpose=purpose)).name
        begun = await site.begin()
        with pytest.raises(errors.Denied, match="sign in"):
            await site.answer(begun.user_code, "approve")
        assert (await site.fetch(begun.device_code)).issued is None
        site.token = signed_in
        await site.answer(begun.user_code, "approve")
        assert (await site.fetch(begun.device_code)).issued is not None


async def test_a_machine_that_was_let_in_lets_in_others_for_no_longer_than_itself(clock):
    async with site_of(clock) as site:
        first = await site.service.login()
        clock.forward(3600)
        site.token = first.name
        begun = await site.begin()
        await site.answer(begun.user_code, "approve")
        issued = (await site.fetch(begun.device_code)).issued
        assert issued.expires_at == first.expires_at
        # A browser's session does, as it did before: it is the person who is there.
        request = m.LoginRequest(user="ada", password=PASSWORD, session=True, client_address="192.0.2.1")
        session = await site.service.handlers.login(request, MESSAGE)
        site.token = session.name
        begun = await site.begin()
        await site.answer(begun.user_code, "approve")
        assert (await site.fetch(begun.device_code)).issued.expires_at > session.expires_at


async def test_what_was_refused_stays_out(clock):
    async with site_of(clock) as site:
        begun = await site.begin()
        await site.answer(begun.user_code, "deny")
        with pytest.raises(errors.Denied, match="refused"):
            await site.fetch(begun.device_code)
        with pytest.raises(errors.NotFound):
            await site.answer(begun.user_code, "approve")


async def test_codes_are_no_words_and_not_stored_readable(clock):
    async with site_of(clock) as site:
        begun = await site.begin()
        assert not set(begun.user_code) & set("AEIOUY")
        stored = [entry.key + str(entry.value) for entry in site.hub.stores["identity"]._last.values()]
        assert not any(begun.device_code in text for text in stored)


async def test_short_codes_cannot_be_guessed_through(clock):
    async with site_of(clock) as site:
        await site.begin()
        refused = 0
        for n in range(60):
            try:
                await site.answer(f"BCDF-GHJ{'KLMNPQRSTV'[n % 10]}")
            except errors.TooManyRequests:
                refused += 1
            except errors.NotFound:
                continue
        assert refused > 20


@pytest.mark.parametrize("limit", [{"read_only": True}, {"clusters": ["east"]}])
async def test_a_restricted_token_lets_nobody_in(clock, limit):
    async with site_of(clock) as site:
        begun = await site.begin()
        with pytest.raises(errors.Denied, match="restricted"):
            await site.answer(begun.user_code, "approve", **limit)


async def test_a_user_who_is_disabled_meanwhile_lets_nobody_in(clock):
    async with site_of(clock) as site:
        begun = await site.begin()
        await site.answer(begun.user_code, "approve")
        ada = ADA.model_copy(deep=True)
        ada.spec.enabled = False
        await site.hub.put(ada)
        with pytest.raises(errors.Denied, match="disabled"):
            await site.fetch(begun.device_code)


@pytest.mark.parametrize("code", ["", "AAAA-AAAA", "BCDF", "BCDF-GHJK-LMNP", "'; drop"])
async def test_odd_codes_are_unknown(clock, code):
    async with site_of(clock) as site:
        await site.begin()
        with pytest.raises(errors.NotFound):
            await site.answer(code)
